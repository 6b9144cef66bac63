package offers

import (
	"errors"
	"testing"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/internal/golden"
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTables(t *testing.T) {
	require.NoError(t, HostTransitions.Check())
	require.NoError(t, GuestTransitions.Check())
	golden.Check(t, "table/offer-host.txt", HostTransitions.Matrix())
	golden.Check(t, "table/offer-guest.txt", GuestTransitions.Matrix())
}

func offer(n byte) Offer {
	return Offer{Key: Key{Interface: vmbus.GUID{1}, Instance: vmbus.GUID{n, 0xFF}}}
}

func publish(t require.TestingT, table *HostTable, o Offer) *Entry {
	e, err := table.Publish(o)
	require.NoError(t, err)
	require.NoError(t, table.Announce(e, true))
	return e
}

// vmbus-control.md 5.3: the lowest free id, from 1, and again only after the
// release.
func TestIDReuse(t *testing.T) {
	table := NewHostTable()
	a, b := publish(t, table, offer(1)), publish(t, table, offer(2))
	require.Equal(t, []vmbus.ChannelID{1, 2}, []vmbus.ChannelID{a.ID, b.ID})

	require.True(t, table.Revoke(a), "a visible offer needs a rescind")
	require.EqualValues(t, 3, publish(t, table, offer(3)).ID, "id 1 is still the guest's")
	require.False(t, table.Revoke(a), "one rescind per offer")

	_, err := table.Release(a)
	require.NoError(t, err)
	require.Equal(t, Gone, a.State())
	require.EqualValues(t, 1, publish(t, table, offer(4)).ID, "released, so free at once for anybody")
}

// faults.md HC-09: the same key waits for the release and comes back under the
// same id.
func TestReofferWaitsForRelease(t *testing.T) {
	table := NewHostTable()
	e := publish(t, table, offer(1))
	table.Revoke(e)
	again, err := table.Publish(offer(1))
	require.NoError(t, err)
	require.Same(t, e, again)
	require.Equal(t, Reoffered, e.State())
	require.False(t, e.Visible())

	reoffer, err := table.Release(e)
	require.NoError(t, err)
	require.True(t, reoffer, "the offer is sent again")
	require.EqualValues(t, 1, e.ID, "under the same id")
	require.True(t, e.Visible())
}

func TestPublishRefusals(t *testing.T) {
	table := NewHostTable()
	publish(t, table, offer(1))
	_, err := table.Publish(offer(1))
	require.ErrorIs(t, err, ErrDuplicate)
	other := offer(1)
	other.Interface = vmbus.GUID{9}
	_, err = table.Publish(other)
	require.ErrorIs(t, err, ErrDuplicate, "Linux matches re-offers by the instance alone")
	sub := offer(1)
	sub.SubChannel = 1
	_, err = table.Publish(sub)
	require.NoError(t, err, "a sub-channel shares both GUIDs with its primary")
}

// faults.md 5: 2047 channels per connection, one more fails for the publisher.
func TestIDLimit(t *testing.T) {
	table := NewHostTable()
	for i := range MaxOffers {
		o := offer(0)
		o.Instance[2], o.Instance[3] = byte(i), byte(i>>8)
		publish(t, table, o)
	}
	o := offer(7)
	_, err := table.Publish(o)
	require.ErrorIs(t, err, ErrFull)
	require.ErrorIs(t, err, vmbus.ErrState)
	require.Nil(t, table.Lookup(0))
	require.NotNil(t, table.Lookup(MaxOffers))
	require.Nil(t, table.Lookup(MaxOffers+1), "an id out of range is refused before it indexes anything")
	require.Nil(t, table.Lookup(1<<31))
}

func TestDisconnect(t *testing.T) {
	table := NewHostTable()
	keeps, revoked := publish(t, table, offer(1)), publish(t, table, offer(2))
	table.Revoke(revoked)
	table.Disconnect(func(*Entry) bool { return false })
	n, ids := table.Len()
	require.Equal(t, 1, n, "a rescinded offer is gone with the connection")
	require.Zero(t, ids)
	require.Equal(t, Hidden, keeps.State())
	require.Equal(t, []*Entry{keeps}, table.Sorted(false), "it is offered again on the next RequestOffers")
}

// I-RELID-UNIQ and I-RELID-RANGE of faults.md 3, against a set of live ids.
func TestHostTableModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		table, live := NewHostTable(), map[vmbus.ChannelID]*Entry{}
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				e, err := table.Publish(offer(rapid.Byte().Draw(t, "instance")))
				if err != nil || e.State() != Hidden {
					return
				}
				require.NoError(t, table.Announce(e, true))
				require.NotContains(t, live, e.ID, "the id belongs to another offer")
				live[e.ID] = e
			},
			"revoke": func(t *rapid.T) {
				if e := draw(t, live); e != nil {
					table.Revoke(e)
				}
			},
			"release": func(t *rapid.T) {
				e := draw(t, live)
				if e == nil {
					return
				}
				id := e.ID
				reoffer, err := table.Release(e)
				require.NoError(t, err, "every id the guest knows may be released")
				if !reoffer {
					delete(live, id)
				}
			},
			"": func(t *rapid.T) {
				_, ids := table.Len()
				require.Len(t, live, ids)
				for id, e := range live {
					require.Same(t, e, table.Lookup(id))
				}
			},
		})
	})
}

func draw(t *rapid.T, live map[vmbus.ChannelID]*Entry) *Entry {
	for id := vmbus.ChannelID(rapid.IntRange(1, 40).Draw(t, "id")); id > 0; id-- {
		if e := live[id]; e != nil {
			return e
		}
	}
	return nil
}

func TestCatalogue(t *testing.T) {
	var c Catalogue
	for _, id := range []vmbus.ChannelID{0, 2048, 1 << 31, 1<<32 - 1} {
		_, err := c.Offer(vmbus.OfferChannel{Channel: id})
		require.ErrorIs(t, err, vmbus.ErrProtocol, "channel id %d is outside 1..2047", id)
	}
	_, err := c.Offer(vmbus.OfferChannel{Channel: 5})
	require.NoError(t, err)
	_, err = c.Offer(vmbus.OfferChannel{Channel: 5})
	var offerErr *OfferError
	require.True(t, errors.As(err, &offerErr), "GC-21: an id in use is the host's fault")

	require.False(t, c.Rescind(6), "never offered")
	require.True(t, c.Rescind(5))
	require.False(t, c.Rescind(5), "GC-05: the second rescind is a no-op")
	require.NoError(t, c.Release(5))
	require.ErrorIs(t, c.Release(5), vmbus.ErrState, "released exactly once")
	require.Zero(t, c.Len())
}
