package offers

import (
	"cmp"
	"slices"
)

// primary returns the entry of the primary channel k belongs to, or nil.
func (t *HostTable) primary(k Key) *Entry {
	return t.byKey[Key{Interface: k.Interface, Instance: k.Instance}]
}

// hasPrimary reports whether the primary channel of k is published and not
// withdrawn.
func (t *HostTable) hasPrimary(k Key) bool {
	p := t.primary(k)
	return p != nil && p.state != Revoked
}

// order is what e is sorted by: that of its primary.
func (t *HostTable) order(e *Entry) uint32 {
	if p := t.primary(e.Key); p != nil {
		return p.Order
	}
	return e.Order
}

// MayAnnounce reports whether e may be shown to the guest as far as other offers
// are concerned: a sub-channel follows its primary, which the guest must know
// (vmbus-control.md 7.1).
func (t *HostTable) MayAnnounce(e *Entry) bool {
	return e.SubChannel == 0 || t.hasPrimary(e.Key) && t.primary(e.Key).Visible()
}

// SubChannels returns the sub-channels of a primary channel by their index; none
// if e is a sub-channel itself.
func (t *HostTable) SubChannels(e *Entry) []*Entry {
	var list []*Entry
	if e.SubChannel != 0 {
		return nil
	}
	for k, sub := range t.byKey {
		if k.SubChannel != 0 && k.Interface == e.Interface && k.Instance == e.Instance {
			list = append(list, sub)
		}
	}
	slices.SortFunc(list, func(a, b *Entry) int { return cmp.Compare(a.SubChannel, b.SubChannel) })
	return list
}
