package vmbus_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

func fromHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	require.NoError(t, err)
	return b
}

func at(v vmbus.Version, f vmbus.Features) vmbus.Negotiated {
	return vmbus.Negotiated{Version: v, Features: f}
}

// contact is the body of an InitiateContact for version v (little-endian hex)
// with target info features f (little-endian hex), cut or padded to n bytes.
func contact(t *testing.T, v, f string, n int) []byte {
	t.Helper()
	b := fromHex(t, "0e000000 00000000"+v+"00000000 02000000"+f)
	return append(b, make([]byte, 64)...)[:vmbus.HeaderBytes+n]
}

func TestParseErrors(t *testing.T) {
	const zeros = 100
	iron, copper := at(vmbus.Iron, 0), at(vmbus.Copper, 0)
	pad := func(text string) []byte { return append(fromHex(t, text), make([]byte, zeros)...) }
	for _, tc := range []struct {
		name string
		b    []byte
		n    vmbus.Negotiated
		want error
	}{
		{"nothing", nil, iron, &vmbus.ParseError{Have: -8}},
		{"half a type", fromHex(t, "0500"), iron, &vmbus.ParseError{Have: -6}},
		{"type without reserved word", fromHex(t, "05000000"), iron, &vmbus.ParseError{Type: vmbus.TypeOpenChannel, Have: -4}},
		{"header of an open", fromHex(t, "05000000 00000000"), iron, &vmbus.ParseError{Type: vmbus.TypeOpenChannel, Have: 0, Min: 140}},

		{"type 0 is invalid", pad("00000000 00000000"), iron, &vmbus.TypeError{Type: 0, Negotiated: iron}},
		{"type 30 is not known", pad("1e000000 00000000"), all, &vmbus.TypeError{Type: 30, Negotiated: all}},
		{"type 0xffffffff is not known", pad("ffffffff 00000000"), all, &vmbus.TypeError{Type: 0xFFFFFFFF, Negotiated: all}},
		{"an unknown type is named even without a body", fromHex(t, "1e000000 00000000"), all, &vmbus.TypeError{Type: 30, Negotiated: all}},

		{"no offers before negotiation", pad("03000000 00000000"), at(0, 0), &vmbus.TypeError{Type: vmbus.TypeRequestOffers}},
		{"UnloadComplete came with 1.1", pad("11000000 00000000"), at(vmbus.V1, 0), &vmbus.TypeError{Type: vmbus.TypeUnloadComplete, Negotiated: at(vmbus.V1, 0)}},
		{"sockets came with 4.0", pad("15000000 00000000"), at(vmbus.Win81, 0), &vmbus.TypeError{Type: vmbus.TypeTLConnectRequest, Negotiated: at(vmbus.Win81, 0)}},
		{"refusals came with 4.1", pad("17000000 00000000"), at(vmbus.Win10, 0), &vmbus.TypeError{Type: vmbus.TypeTLConnectResult, Negotiated: at(vmbus.Win10, 0)}},
		{"features do not exist below 6.0", pad("1b000000 00000000"), at(vmbus.Iron, vmbus.AllFeatures), &vmbus.TypeError{Type: vmbus.TypePause, Negotiated: at(vmbus.Iron, vmbus.AllFeatures)}},
		{"a feature must be granted", pad("1b000000 00000000"), at(vmbus.Copper, vmbus.AllFeatures&^vmbus.PauseResume), &vmbus.TypeError{Type: vmbus.TypePause, Negotiated: at(vmbus.Copper, vmbus.AllFeatures&^vmbus.PauseResume)}},

		{"the 148-byte open with signal parameters granted", append(fromHex(t, "05000000 00000000"), make([]byte, 140)...), at(vmbus.Copper, vmbus.GuestSignalParams), &vmbus.ParseError{Type: vmbus.TypeOpenChannel, Have: 140, Min: 148}},
		{"the 148-byte open with redirection granted", append(fromHex(t, "05000000 00000000"), make([]byte, 140)...), at(vmbus.Copper, vmbus.RedirectInterrupt), &vmbus.ParseError{Type: vmbus.TypeOpenChannel, Have: 140, Min: 148}},
		{"a contact one byte short", contact(t, "03000500", "00000000", 31), at(0, 0), &vmbus.ParseError{Type: vmbus.TypeInitiateContact, Have: 31, Min: 32}},
		{"a client id is announced and missing", contact(t, "00000600", "08000000", 32), at(0, 0), &vmbus.ParseError{Type: vmbus.TypeInitiateContact, Have: 32, Min: 48}},
		{"a client id is announced and one byte short", contact(t, "00000600", "ffffffff", 47), iron, &vmbus.ParseError{Type: vmbus.TypeInitiateContact, Have: 47, Min: 48}},
		{"a version response is 16 bytes or more at 6.0 too", fromHex(t, "0f000000 00000000 01000000 010000"), copper, &vmbus.ParseError{Type: vmbus.TypeVersionResponse, Have: 7, Min: 8}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, tail, err := vmbus.Parse(tc.b, tc.n)
			require.Equal(t, tc.want, err)
			require.Nil(t, m)
			require.Nil(t, tail)
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			require.NotErrorIs(t, err, vmbus.ErrState)
			require.NotEmpty(t, err.Error())
		})
	}
}

// TestParseChoosesTheForm is section 3's rules for the types with several forms.
func TestParseChoosesTheForm(t *testing.T) {
	body := func(ty byte, n int) []byte { return append([]byte{ty, 0, 0, 0, 0, 0, 0, 0}, make([]byte, n)...) }
	for _, tc := range []struct {
		name string
		b    []byte
		n    vmbus.Negotiated
		want string
		tail int
	}{
		{"4.0 takes long responses as padding", body(15, 32), at(vmbus.Win10, vmbus.AllFeatures), "VersionResponse", 24},
		{"5.3 too", body(15, 12), at(vmbus.Iron, 0), "VersionResponse", 4},
		{"nothing asked for", body(15, 232), at(0, 0), "VersionResponse", 224},
		{"16 bytes refuse 6.0", body(15, 8), at(vmbus.Copper, 0), "VersionResponse", 0},
		{"19 bytes hold no features", body(15, 11), at(vmbus.Copper, 0), "VersionResponse", 3},
		{"20 bytes hold features", body(15, 12), at(vmbus.Copper, 0), "VersionResponse2", 0},
		{"20 bytes rounded up to 24", body(15, 16), at(vmbus.Copper, 0), "VersionResponse2", 4},
		{"39 bytes hold half a page address", body(15, 31), at(vmbus.Copper, 0), "VersionResponse2", 19},
		{"40 bytes hold monitor pages", body(15, 32), at(vmbus.Copper, 0), "VersionResponse3", 0},

		{"4.1 has no silo", body(21, 48), at(vmbus.Win10RS3, 0), "TLConnectRequest", 16},
		{"5.1 has no silo", body(21, 48), at(vmbus.Win10RS4, 0), "TLConnectRequest", 16},
		{"5.2 has a silo", body(21, 48), at(vmbus.Win10RS5, 0), "TLConnectRequest2", 0},
		{"Linux never sends it", body(21, 32), at(vmbus.Iron, 0), "TLConnectRequest", 0},
		{"part of a silo is no silo", body(21, 47), at(vmbus.Iron, 0), "TLConnectRequest", 15},

		{"plain open", body(5, 232), at(vmbus.Copper, vmbus.AllFeatures&^(vmbus.GuestSignalParams|vmbus.RedirectInterrupt)), "OpenChannel", 92},
		{"open with signal parameters", body(5, 148), at(vmbus.Copper, vmbus.GuestSignalParams), "OpenChannel2", 0},
		{"open with redirection", body(5, 148), at(vmbus.Copper, vmbus.RedirectInterrupt), "OpenChannel2", 0},
		{"features mean nothing at 5.3", body(5, 148), at(vmbus.Iron, vmbus.AllFeatures), "OpenChannel", 8},

		{"contact padded to 240 bytes", body(14, 232), all, "InitiateContact", 200},
		{"version 0 is a form like any other", contact(t, "00000000", "ffffffff", 48), at(0, 0), "InitiateContact", 16},
		{"5.3 has no features in its target info", contact(t, "03000500", "ffffffff", 48), at(0, 0), "InitiateContact", 16},
		{"6.0 without the flag has no client id", contact(t, "00000600", "f7ffffff", 48), at(0, 0), "InitiateContact", 16},
		{"6.0 with the flag has one", contact(t, "00000600", "08000000", 48), at(0, 0), "InitiateContact2", 0},
		{"what is negotiated plays no part", contact(t, "00000600", "08000000", 56), at(vmbus.V1, 0), "InitiateContact2", 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, tail, err := vmbus.Parse(tc.b, tc.n)
			require.NoError(t, err)
			require.Equal(t, tc.want, vmbus.Name(m))
			require.Len(t, tail, tc.tail)
		})
	}
}

// TestParseEveryLength is S10: every type cut at every length, padded to a full
// slot and one byte more. A message as long as its form or longer decodes, a
// shorter one says how much is missing.
func TestParseEveryLength(t *testing.T) {
	for _, n := range []vmbus.Negotiated{{}, at(vmbus.V1, 0), at(vmbus.Iron, 0), at(vmbus.Copper, 0), all} {
		for ty := range vmbus.Type(32) {
			for size := range vmbus.MaxPayloadBytes + 2 {
				b := append(probe(ty, vmbus.MaxBodyBytes), 0)[:size]
				m, tail, err := vmbus.Parse(b, n)
				if err == nil {
					require.Equal(t, size, vmbus.Size(m)+len(tail))
					continue
				}
				require.ErrorIs(t, err, vmbus.ErrProtocol)
				if e, short := err.(*vmbus.ParseError); short {
					require.Equal(t, size-vmbus.HeaderBytes, e.Have)
					require.True(t, e.Have < 0 || e.Have < e.Min)
				}
			}
		}
	}
}

// TestParseFromRejectsTheOtherSide is HC-02: a guest that sends host messages.
func TestParseFromRejectsTheOtherSide(t *testing.T) {
	other := map[vmbus.Direction]vmbus.Direction{vmbus.HostToGuest: vmbus.GuestToHost, vmbus.GuestToHost: vmbus.HostToGuest}
	for ty := vmbus.TypeOfferChannel; ty <= vmbus.TypeResume; ty++ {
		for _, n := range []vmbus.Negotiated{{}, all} { // also before anything is negotiated
			_, _, err := vmbus.ParseFrom(other[ty.Direction()], probe(ty, vmbus.MaxBodyBytes), n)
			require.Equal(t, &vmbus.DirectionError{Type: ty, From: other[ty.Direction()]}, err)
			require.ErrorIs(t, err, vmbus.ErrProtocol)
			require.NotErrorIs(t, err, vmbus.ErrState)
		}
		m, tail, err := vmbus.ParseFrom(ty.Direction(), probe(ty, vmbus.MaxBodyBytes), all)
		require.NoError(t, err)
		require.Equal(t, ty, m.Type())
		require.Equal(t, vmbus.MaxPayloadBytes, vmbus.Size(m)+len(tail))
	}
	_, _, err := vmbus.ParseFrom(vmbus.GuestToHost, probe(77, 0), all)
	require.Equal(t, &vmbus.TypeError{Type: 77, Negotiated: all}, err, "an unknown type has no direction to be wrong")
	_, _, err = vmbus.ParseFrom(vmbus.GuestToHost, nil, all)
	require.Equal(t, &vmbus.ParseError{Have: -8}, err)
}

func TestParseIgnoresTheReservedWord(t *testing.T) {
	b := fromHex(t, "0d000000 deadbeef 02000000")
	m, _, err := vmbus.Parse(b, at(vmbus.Iron, 0))
	require.NoError(t, err)
	require.Equal(t, &vmbus.RelIDReleased{Channel: 2}, m)
}

// TestParseIgnoresPadding: reserved bytes are not fields, whatever they hold.
func TestParseIgnoresPadding(t *testing.T) {
	b := fromHex(t, "0f000000 00000000 0102ffff 04000000 4f000000 ffffffff 0010000000000000 0020000000000000")
	m, _, err := vmbus.Parse(b, all)
	require.NoError(t, err)
	want := &vmbus.VersionResponse3{ParentToChild: 0x1000, ChildToParent: 0x2000}
	want.Supported, want.ConnectionState, want.VersionOrConnectionID, want.Features = 1, 2, 4, 0x4F
	require.Equal(t, want, m)
}

// TestParseCopies: shared memory may change under the message, and an append to
// the tail must not write behind it.
func TestParseCopies(t *testing.T) {
	b := append(vmbus.AppendWords(vmbus.Append(nil, &vmbus.GPADLHeader{Channel: 2, GPADL: 3}), []uint64{4}), 0x55)
	m, tail, err := vmbus.Parse(b[:len(b)-1], all)
	require.NoError(t, err)
	words := vmbus.Words(tail)
	_ = append(tail, 0xAA)
	require.Equal(t, byte(0x55), b[len(b)-1])
	clear(b)
	require.Equal(t, &vmbus.GPADLHeader{Channel: 2, GPADL: 3}, m)
	require.Equal(t, []uint64{4}, words)
	require.Equal(t, make([]byte, 8), tail, "the tail is b itself")
}

func TestWordsIgnoreARest(t *testing.T) {
	for rest := range 8 {
		tail := append(vmbus.AppendWords(nil, []uint64{1, 1<<64 - 1}), bytes.Repeat([]byte{0xFF}, rest)...)
		require.Equal(t, []uint64{1, 1<<64 - 1}, vmbus.Words(tail))
	}
	require.Empty(t, vmbus.Words(nil))
	require.Equal(t, fromHex(t, "00b0000000000000"), vmbus.AppendWords(nil, []uint64{0xB000}))
}

// stranger is no message of this package.
type stranger struct{ S string }

func (*stranger) Type() vmbus.Type { return 99 }

func TestAppendPanicsOnOurOwnBug(t *testing.T) {
	require.Panics(t, func() { vmbus.Append(nil, &stranger{}) })
	require.Panics(t, func() { vmbus.Append(nil, nil) })
}
