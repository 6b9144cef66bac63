package vmbus_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/hvlab/hvlab/vmbus"
)

// TestVersions: the table of vmbus-control.md 2.1.
func TestVersions(t *testing.T) {
	want := []struct {
		text  string
		value uint32
	}{
		{"0.13", 0x0000000D}, {"1.1", 0x00010001}, {"2.4", 0x00020004}, {"3.0", 0x00030000}, {"4.0", 0x00040000}, {"4.1", 0x00040001},
		{"5.0", 0x00050000}, {"5.1", 0x00050001}, {"5.2", 0x00050002}, {"5.3", 0x00050003}, {"6.0", 0x00060000},
	}
	require.Len(t, vmbus.Versions(), len(want))
	for i, v := range vmbus.Versions() {
		require.Equal(t, want[i].value, uint32(v))
		require.Equal(t, want[i].text, v.String())
		require.True(t, v.Known())
		parsed, err := vmbus.ParseVersion(want[i].text)
		require.NoError(t, err)
		require.Equal(t, v, parsed)
	}
	for _, v := range []vmbus.Version{0, 0x00050004, 0x00060001, 0xFFFFFFFF} {
		require.False(t, v.Known(), "only the table's values are versions, %v is not", v)
	}
	require.Equal(t, "65535.65535", vmbus.Version(0xFFFFFFFF).String())
	vmbus.Versions()[0] = 0
	require.Equal(t, vmbus.V1, vmbus.Versions()[0], "the list is the caller's own")
}

func TestParseVersionRefuses(t *testing.T) {
	for _, text := range []string{"", "5", "5.4", "5.3 ", "05.3", "5.3.0", "0x50003", "6.00"} {
		_, err := vmbus.ParseVersion(text)
		require.Equal(t, &vmbus.TextError{Kind: "VMBus version", Text: text}, err)
		require.ErrorIs(t, err, vmbus.ErrState, "the text is the caller's")
		require.NotErrorIs(t, err, vmbus.ErrProtocol)
		require.Contains(t, err.Error(), fmt.Sprintf("%q", text))
	}
}

func TestFlagTexts(t *testing.T) {
	require.Equal(t, vmbus.Features(0xFF), vmbus.AllFeatures)
	require.Equal(t, "none", vmbus.Features(0).String())
	require.Equal(t, "GuestSignalParams|RedirectInterrupt|ConnectionModify|ClientIDs|ConfidentialChannels|PauseResume|ServerMonitorPages|GPAPinning", vmbus.AllFeatures.String())
	require.Equal(t, "ClientIDs|0xffffff00", (vmbus.ClientIDs | 0xFFFFFF00).String(), "no bit is hidden")
	require.Equal(t, "none", vmbus.OfferFlags(0).String())
	require.Equal(t, "Enumerate|NamedPipe|TLNPI", vmbus.OfferFlagsSocket.String())
	require.Equal(t, "Enumerate|ConfidentialRing|ConfidentialExternal|Pinned|NamedPipe|Loopback|Parent|RequestMonitored|TLNPI|0xd8e0", vmbus.OfferFlags(0xFFFF).String())
	require.Equal(t, vmbus.OfferFlags(0x2011), vmbus.OfferFlagsSocket)
}

// TestFeatureBits: the table of vmbus-control.md 2.2.
func TestFeatureBits(t *testing.T) {
	for bit, f := range []vmbus.Features{
		vmbus.GuestSignalParams, vmbus.RedirectInterrupt, vmbus.ConnectionModify, vmbus.ClientIDs,
		vmbus.ConfidentialChannels, vmbus.PauseResume, vmbus.ServerMonitorPages, vmbus.GPAPinning,
	} {
		require.Equal(t, vmbus.Features(1)<<bit, f)
	}
}

func TestOtherTexts(t *testing.T) {
	require.Equal(t, "0xe1e10", vmbus.GPADLID(0xE1E10).String())
	require.Equal(t, "CONNECTION_REFUSED", vmbus.StatusText(vmbus.StatusConnectionRefused))
	require.Equal(t, "FAILURE", vmbus.StatusText(vmbus.StatusFailure))
	require.Equal(t, "SUCCESS", vmbus.StatusText(vmbus.StatusSuccess))
	require.Equal(t, "0x00000001", vmbus.StatusText(1))
	require.Equal(t, "OpenChannel", vmbus.TypeOpenChannel.String(), "a type is named after its first form")
	require.Equal(t, "Type(30)", vmbus.Type(30).String())
	require.Equal(t, "Type(0)", vmbus.Type(0).String())
	require.Zero(t, vmbus.Type(0).Direction())
	require.Zero(t, vmbus.Type(30).Direction())
	require.Equal(t, "host>guest", vmbus.HostToGuest.String())
	require.Equal(t, "guest>host", vmbus.GuestToHost.String())
	require.Equal(t, "Direction(0)", vmbus.Direction(0).String())
}

func TestErrorTexts(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&vmbus.ParseError{Type: vmbus.TypeOpenChannel, Have: 3, Min: 140}, "vmbus: message type 5 (OpenChannel): have 3 bytes after the header, need 140"},
		{&vmbus.ParseError{Have: -5}, "vmbus: have 3 bytes, a message header needs 8"},
		{&vmbus.TypeError{Type: 30}, "vmbus: message type 30 is unknown"},
		{&vmbus.TypeError{Type: vmbus.TypePause, Negotiated: at(vmbus.Iron, 0)}, "vmbus: message type 27 (Pause) is not part of version 5.3 with features none"},
		{&vmbus.DirectionError{Type: vmbus.TypeOfferChannel, From: vmbus.GuestToHost}, "vmbus: message type 1 (OfferChannel) came guest>host"},
	} {
		require.EqualError(t, tc.err, tc.want)
	}
	require.False(t, errors.Is(vmbus.ErrProtocol, vmbus.ErrState))
}

// TestTargetInfo: the table of vmbus-control.md 2.4.
func TestTargetInfo(t *testing.T) {
	full := vmbus.TargetInfo{SINT: 7, VTL: 2, Features: 0xF}
	for _, tc := range []struct {
		v    vmbus.Version
		word uint64
		back vmbus.TargetInfo
	}{
		{vmbus.V1, 0, vmbus.TargetInfo{SINT: 2}},
		{vmbus.Win10RS3, 0, vmbus.TargetInfo{SINT: 2}},
		{vmbus.Win10V5, 0x7, vmbus.TargetInfo{SINT: 7}},
		{vmbus.Win10RS4, 0x207, vmbus.TargetInfo{SINT: 7, VTL: 2}},
		{vmbus.Iron, 0x207, vmbus.TargetInfo{SINT: 7, VTL: 2}},
		{vmbus.Copper, 0xF00000207, full},
	} {
		require.Equal(t, tc.word, full.Pack(tc.v), "%v", tc.v)
		require.Equal(t, tc.back, vmbus.UnpackTargetInfo(tc.v, tc.word), "%v", tc.v)
		require.Equal(t, tc.back, vmbus.UnpackTargetInfo(tc.v, 0xF00000207), "%v ignores what it does not know", tc.v)
	}
	require.Equal(t, vmbus.TargetInfo{SINT: 2}, vmbus.UnpackTargetInfo(vmbus.Win10, 0x1233000), "an interrupt page is no target")
	require.Equal(t, uint64(0xF00000002), vmbus.TargetInfo{SINT: 2, Features: 0xF}.Pack(vmbus.Copper), "section 11.2")
}

func TestHVSockUserData(t *testing.T) {
	silo, err := vmbus.ParseGUID("a1b2c3d4-e5f6-4789-8abc-def012345678")
	require.NoError(t, err)
	h := vmbus.HVSockUserData{PipeType: 4, ForGuestAccept: true, ForGuestContainer: true, ParametersVersion: vmbus.HVSockRS5, Silo: silo}
	u := h.Encode()
	require.Equal(t, "04000000"+"01"+"01"+"01000000"+"d4c3b2a1f6e589478abcdef012345678"+strings.Repeat("00", 94), fmt.Sprintf("%x", u[:]),
		"offsets 0, 4, 5, 6 and 10, unaligned, then zero")
	require.Equal(t, h, vmbus.DecodeHVSockUserData(u))

	u[4], u[5], u[119] = 0x80, 0xFF, 9
	require.Equal(t, h, vmbus.DecodeHVSockUserData(u), "any byte but 0 is true, the rest is ignored")

	// The two offers of section 11.2.
	require.Equal(t, "00000000000001...", vmbus.HVSockUserData{ParametersVersion: vmbus.HVSockRS5}.Encode().String())
	require.Equal(t, "00000000010001...", vmbus.HVSockUserData{ForGuestAccept: true, ParametersVersion: vmbus.HVSockRS5}.Encode().String())
}

func TestPipeUserData(t *testing.T) {
	p := vmbus.PipeUserData{PipeType: vmbus.PipeTypeMessage, Flags: vmbus.PipeGPADirect}
	p.Provider[0], p.Provider[111] = 0xAB, 0xCD
	u := p.Encode()
	require.Equal(t, "04000000"+"ab"+strings.Repeat("00", 110)+"cd"+"01000000", fmt.Sprintf("%x", u[:]), "offsets 0, 4 and 116")
	require.Equal(t, p, vmbus.DecodePipeUserData(u))
}

func TestUserDataTexts(t *testing.T) {
	var u vmbus.UserData
	require.Equal(t, "0", u.String())
	u[1] = 0x12
	require.Equal(t, "0012...", u.String())
	u[119] = 0x34
	require.Equal(t, "0012"+strings.Repeat("00", 117)+"34", u.String())
	b, err := json.Marshal(u)
	require.NoError(t, err)
	require.Equal(t, `"`+u.String()+`"`, string(b), "JSON shows every byte")
}

// TestGUIDOrder: the worked examples of vmbus-control.md 10.1.
func TestGUIDOrder(t *testing.T) {
	for text, wire := range map[string]string{
		"f8615163-df3e-46c5-913f-f2d2f965ed0e": "635161f8 3edf c546 913f f2d2f965ed0e",
		"00001388-facb-11e6-bd58-64006a7986d3": "88130000 cbfa e611 bd58 64006a7986d3",
	} {
		g, err := vmbus.ParseGUID(text)
		require.NoError(t, err)
		require.Equal(t, fromHex(t, wire), g[:])
		require.Equal(t, text, g.String())
		require.Equal(t, uuid.MustParse(text), g.UUID())
		require.Equal(t, g, vmbus.GUIDFromUUID(uuid.MustParse(text)))
	}
}

func TestGUIDText(t *testing.T) {
	var g vmbus.GUID
	require.NoError(t, json.Unmarshal([]byte(`"ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"`), &g))
	require.Equal(t, vmbus.InterfaceSCSI, g)
	b, err := json.Marshal(g)
	require.NoError(t, err)
	require.Equal(t, `"ba6163d9-04a1-4d29-b605-72e2ffb1dc7f"`, string(b))

	err = g.UnmarshalText([]byte("scsi"))
	require.Equal(t, &vmbus.TextError{Kind: "GUID", Text: "scsi"}, err)
	require.Equal(t, vmbus.InterfaceSCSI, g, "a failed read leaves the value alone")
}

func TestGUIDRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := vmbus.GUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "wire"))
		if back := vmbus.GUIDFromUUID(g.UUID()); back != g {
			t.Fatalf("%x comes back as %x", g, back)
		}
		if parsed, err := vmbus.ParseGUID(g.String()); err != nil || parsed != g {
			t.Fatalf("%v comes back as %v, %v", g, parsed, err)
		}
	})
}

func TestFields(t *testing.T) {
	m := &vmbus.OpenChannel2{EventFlag: 7}
	m.Channel, m.Ring, m.TargetVP = 2, 0xE1E10, vmbus.NoInterrupt
	var text []string
	for _, f := range vmbus.Fields(m) {
		text = append(text, f.String())
	}
	require.Equal(t, "channel_id=2 open_id=0 ring_buffer_gpadl=0xe1e10 target_vp=4294967295 downstream_page_offset=0 user_data=0"+
		" connection_id=0 event_flag=7 open_flags=0", strings.Join(text, " "), "the shorter form's fields come first")

	require.Equal(t, []vmbus.Field{{"channel_id", vmbus.ChannelID(2), 8, 4}, {"status", vmbus.StatusFailure, 12, 4}},
		vmbus.Fields(&vmbus.ModifyChannelResponse{Channel: 2, Status: vmbus.StatusFailure}), "values keep their type")
	var last vmbus.Field
	for _, f := range vmbus.Fields(&vmbus.VersionResponse3{}) {
		last = f
	}
	require.Equal(t, vmbus.Field{"child_to_parent_monitor_page", uint64(0), 32, 8}, last, "padding counts: vmbus-control.md 3.11")
	silo := vmbus.FieldsOf(&vmbus.HVSockUserData{}, 60)[4]
	require.Equal(t, vmbus.Field{"silo_id", vmbus.GUID{}, 70, 16}, silo, "unaligned, at byte 10 of the user data: 3.1.2")
	require.Equal(t, "status=CONNECTION_REFUSED", vmbus.Field{Name: "status", Value: vmbus.StatusConnectionRefused}.String())
	require.Empty(t, vmbus.Fields(&vmbus.Unload{}))
	for _, m := range forms() {
		for _, f := range vmbus.Fields(m) {
			require.NotEmpty(t, f.Name, "%T has a field without a wire name", m)
		}
	}
}
