// Package offers is the lifetime of an offer: who may see a channel id, when it
// is rescinded, released and reused.
//
// A host publishes a device as an [Offer]. The guest sees it as a channel id
// once it has been announced, loses it when the host rescinds it, and gives the
// id back with RelIDReleased; only then may the id, or the same key, be used
// again. [HostTable] holds that bookkeeping for one guest connection,
// [Catalogue] is the guest's half. Both are pure: no goroutine, lock or clock.
//
// What happens between open and close is package channel's business; package
// endpoint puts the two together.
//
// Source: vmbus-control.md 5.2 (states), 5.3 (id reuse), 6.3 (guest).
package offers
