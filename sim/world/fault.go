package world

// Legal faults.
const (
	faultNone uint8 = iota
	faultRescind
)

var faultNames = [...]string{"", "rescind"}

// What a hostile peer does.
const (
	hostileNone uint8 = iota
	hostilePost
)

var hostileNames = [...]string{"", "post"}

func (w *World) enableFaults()    {}
func (w *World) doFault(s Step)   {}
func (w *World) doHostile(s Step) {}
