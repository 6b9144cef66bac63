package endpoint

const (
	// MaxSocketRequests is the number of TLConnectRequests that may wait for an
	// answer; at that number no further guest message is handled
	// (vmbus-control.md 3.14).
	MaxSocketRequests = 16
	// MaxIncomingMessages is the number of guest messages a driver may queue
	// for the core; when it is full a post gets INSUFFICIENT_BUFFERS
	// (vmbus-control.md 5.5).
	MaxIncomingMessages = 64
	// MaxOutgoingMessages bounds the offers and rescinds in the host's outbox; the
	// rest of them are produced as room appears. No guest message is handled while
	// one waits, so besides them there are only answers to requests a device is
	// working on (faults.md 5).
	MaxOutgoingMessages = 128
	// MaxHeldOperations is the number of opens, closes and modifications that may
	// wait for a stopped device: one ModifyChannel, and one open or close behind
	// it, since the guest may not ask for another before that is answered
	// (faults.md HC-08). What its GPADLs wait for is bounded by their own limit,
	// channel.MaxGPADLs; what the device has to be told of a guest that is gone, by
	// what it holds.
	MaxHeldOperations = 2
	// MessagePort and MultiClientPort are the connection ids a host listens on
	// for the whole life of the VM (vmbus-control.md 1.3).
	MessagePort     = 1
	MultiClientPort = 4
	// VMBusSINT is the synthetic interrupt that carries VMBus.
	VMBusSINT = 2
	// connectionIDBits is what a connection id has; the rest of its word is
	// reserved (vmbus-control.md 1.3).
	connectionIDBits = 24
	// firstGPADL is where guests begin to count GPADL ids
	// (vmbus-control.md 4.2).
	firstGPADL = 0xE1E10
)
