package vmbus_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/vmbus"
)

// TestRoundTrip: what Append writes, Parse reads back, for every form with any
// field values in any negotiation that has the form.
func TestRoundTrip(t *testing.T) {
	for _, zero := range forms() {
		t.Run(vmbus.Name(zero), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := drawMessage(t, zero)
				n := drawNegotiated(t, m)
				tail := drawTail(t, m)
				b := append(vmbus.Append(nil, m), tail...)
				got, gotTail, err := vmbus.ParseFrom(m.Type().Direction(), b, n)
				if err != nil {
					t.Fatalf("%T at %v: %v", m, n, err)
				}
				if diff := cmp.Diff(m, got, cmp.Exporter(everyType)); diff != "" {
					t.Fatalf("%T at %v (-sent +got):\n%s", m, n, diff)
				}
				if !bytes.Equal(tail, gotTail) {
					t.Fatalf("%T at %v: tail %x, sent %x", m, n, gotTail, tail)
				}
			})
		})
	}
}

// everyType lets cmp look at padding too, which it would refuse.
func everyType(reflect.Type) bool { return true }

// drawMessage fills a copy of zero with any values that its form may carry.
func drawMessage(t *rapid.T, zero vmbus.Message) vmbus.Message {
	v := reflect.New(reflect.TypeOf(zero).Elem())
	fields := map[string]reflect.Value{}
	settable(v.Elem(), fields)
	for _, f := range vmbus.Fields(zero) { // in a fixed order, so that rapid can shrink
		field := fields[f.Name]
		if field.Kind() == reflect.Array {
			b := rapid.SliceOfN(rapid.Byte(), field.Len(), field.Len()).Draw(t, f.Name)
			reflect.Copy(field, reflect.ValueOf(b))
			continue
		}
		bits := field.Type().Bits()
		field.SetUint(rapid.Uint64Range(0, 1<<(bits-1)<<1-1).Draw(t, f.Name))
	}
	m := v.Interface().(vmbus.Message)
	switch m := m.(type) {
	case *vmbus.InitiateContact2: // a client id is announced by version and feature
		m.Version = max(m.Version, vmbus.Copper)
		m.TargetInfo |= uint64(vmbus.ClientIDs) << 32
	case *vmbus.InitiateContact: // and the short form is for everything else
		if m.Version >= vmbus.Copper {
			m.TargetInfo &^= uint64(vmbus.ClientIDs) << 32
		}
	}
	return m
}

// drawNegotiated returns any negotiation in which m's form is the one to use.
func drawNegotiated(t *rapid.T, m vmbus.Message) vmbus.Negotiated {
	since := vmbus.V1
	for _, v := range vmbus.Versions() {
		if vmbus.Available(m.Type(), vmbus.Negotiated{Version: v, Features: vmbus.AllFeatures}) {
			since = v
			break
		}
	}
	n := vmbus.Negotiated{Features: vmbus.Features(rapid.Uint32().Draw(t, "features"))}
	switch m.(type) {
	case *vmbus.OpenChannel2:
		since = vmbus.Copper
		n.Features |= rapid.SampledFrom([]vmbus.Features{vmbus.GuestSignalParams, vmbus.RedirectInterrupt}).Draw(t, "one of")
	case *vmbus.OpenChannel:
		n.Features &^= vmbus.GuestSignalParams | vmbus.RedirectInterrupt
	case *vmbus.VersionResponse2, *vmbus.VersionResponse3:
		since = vmbus.Copper
	case *vmbus.TLConnectRequest2:
		since = vmbus.Win10RS5
	case *vmbus.ModifyConnection, *vmbus.ModifyConnectionResponse:
		n.Features |= vmbus.ConnectionModify
	case *vmbus.Pause, *vmbus.PauseResponse, *vmbus.Resume:
		n.Features |= vmbus.PauseResume
	}
	n.Version = rapid.SampledFrom(vmbus.Versions()).
		Filter(func(v vmbus.Version) bool { return v >= since }).Draw(t, "version")
	return n
}

// drawTail returns bytes behind m that do not make it look like a longer form.
func drawTail(t *rapid.T, m vmbus.Message) []byte {
	most := vmbus.MaxPayloadBytes - vmbus.Size(m)
	switch m.(type) {
	case *vmbus.VersionResponse:
		most = 3
	case *vmbus.VersionResponse2:
		most = 19
	case *vmbus.TLConnectRequest:
		most = 15
	}
	return rapid.SliceOfN(rapid.Byte(), 0, most).Draw(t, "tail")
}

func TestWordsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.Uint64(), 0, vmbus.MaxBodyPFNs).Draw(t, "words")
		rest := rapid.SliceOfN(rapid.Byte(), 0, 7).Draw(t, "rest")
		if got := vmbus.Words(append(vmbus.AppendWords(nil, words), rest...)); !cmp.Equal(append([]uint64{}, words...), got) {
			t.Fatalf("%x comes back as %x", words, got)
		}
	})
}

func TestUserDataRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := vmbus.HVSockUserData{
			PipeType: rapid.Uint32().Draw(t, "type"), ForGuestAccept: rapid.Bool().Draw(t, "accept"),
			ForGuestContainer: rapid.Bool().Draw(t, "container"), ParametersVersion: rapid.Uint32().Draw(t, "version"),
			Silo: vmbus.GUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "silo")),
		}
		if got := vmbus.DecodeHVSockUserData(h.Encode()); got != h {
			t.Fatalf("%+v comes back as %+v", h, got)
		}
		p := vmbus.PipeUserData{
			PipeType: h.PipeType, Flags: h.ParametersVersion,
			Provider: [112]byte(rapid.SliceOfN(rapid.Byte(), 112, 112).Draw(t, "provider")),
		}
		if got := vmbus.DecodePipeUserData(p.Encode()); got != p {
			t.Fatalf("%+v comes back as %+v", p, got)
		}
	})
}
