package vmbus_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

// all is the newest negotiation: in it every type exists.
var all = vmbus.Negotiated{Version: vmbus.Copper, Features: vmbus.AllFeatures}

// forms has one zero message of every form, in the order of the specification.
func forms() []vmbus.Message {
	return []vmbus.Message{
		&vmbus.OfferChannel{}, &vmbus.RescindChannelOffer{}, &vmbus.RequestOffers{}, &vmbus.AllOffersDelivered{},
		&vmbus.OpenChannel{}, &vmbus.OpenChannel2{}, &vmbus.OpenResult{}, &vmbus.CloseChannel{},
		&vmbus.GPADLHeader{}, &vmbus.GPADLBody{}, &vmbus.GPADLCreated{}, &vmbus.GPADLTeardown{}, &vmbus.GPADLTorndown{},
		&vmbus.RelIDReleased{}, &vmbus.InitiateContact{}, &vmbus.InitiateContact2{},
		&vmbus.VersionResponse{}, &vmbus.VersionResponse2{}, &vmbus.VersionResponse3{},
		&vmbus.Unload{}, &vmbus.UnloadComplete{},
		&vmbus.OpenReservedChannel{}, &vmbus.CloseReservedChannel{}, &vmbus.CloseReservedChannelResponse{},
		&vmbus.TLConnectRequest{}, &vmbus.TLConnectRequest2{}, &vmbus.ModifyChannel{}, &vmbus.TLConnectResult{},
		&vmbus.ModifyChannelResponse{}, &vmbus.ModifyConnection{}, &vmbus.ModifyConnectionResponse{},
		&vmbus.Pause{}, &vmbus.PauseResponse{}, &vmbus.Resume{},
	}
}

// A vector is one entry of testdata/vectors-control.json.
type vector struct {
	Name      string
	Type      vmbus.Type
	Message   string // in OpenVMM's spelling
	Version   string // "any" or major.minor
	Direction string
	Fields    map[string]any // json.Number, string, or []any of json.Number
	Length    int
	Hex       string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	file, err := os.Open("../testdata/vectors-control.json")
	require.NoError(t, err)
	defer file.Close()
	var vs []vector
	dec := json.NewDecoder(file)
	dec.UseNumber() // GPAs and target info do not fit a float64
	require.NoError(t, dec.Decode(&vs))
	require.Len(t, vs, 46, "the specification says 46 vectors")
	return vs
}

// bytes is the whole message.
func (v vector) bytes(t testing.TB) []byte {
	t.Helper()
	b, err := hex.DecodeString(v.Hex)
	require.NoError(t, err)
	require.Len(t, b, v.Length)
	return b
}

// negotiated is the vector's version with every feature: below Copper features
// must make no difference.
func (v vector) negotiated(t testing.TB) vmbus.Negotiated {
	t.Helper()
	if v.Version == "any" {
		return vmbus.Negotiated{Version: vmbus.V1, Features: vmbus.AllFeatures}
	}
	version, err := vmbus.ParseVersion(v.Version)
	require.NoError(t, err)
	return vmbus.Negotiated{Version: version, Features: vmbus.AllFeatures}
}

// formName is v.Message in this package's spelling.
func (v vector) formName() string {
	return strings.NewReplacer("Gpadl", "GPADL", "Tl", "TL", "RelId", "RelID", "OpenChannelResult", "OpenResult").Replace(v.Message)
}

// message builds the form from the vector's fields, without looking at its bytes.
func (v vector) message(t testing.TB) vmbus.Message {
	t.Helper()
	for _, m := range forms() {
		if vmbus.Name(m) != v.formName() {
			continue
		}
		set := map[string]reflect.Value{}
		settable(reflect.ValueOf(m).Elem(), set)
		for name, value := range v.Fields {
			switch name {
			case "padding", "padding2":
				require.Equal(t, json.Number("0"), value, "padding is no field here, so only zero can be sent")
			case "data": // the words behind the fixed form
			default:
				require.Contains(t, set, name, "%s", v.Name)
				require.NoError(t, assign(set[name], fmt.Sprint(value)))
			}
		}
		return m
	}
	t.Fatalf("%s: no form %s", v.Name, v.formName())
	return nil
}

// words is the vector's "data", in order.
func (v vector) words(t testing.TB) []uint64 {
	t.Helper()
	words := []uint64{}
	list, _ := v.Fields["data"].([]any)
	for _, w := range list {
		n, err := strconv.ParseUint(fmt.Sprint(w), 10, 64)
		require.NoError(t, err)
		words = append(words, n)
	}
	return words
}

// settable collects the fields of a message by wire name.
func settable(v reflect.Value, set map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			settable(v.Field(i), set)
		} else if f.Name != "_" {
			set[f.Tag.Get("wire")] = v.Field(i)
		}
	}
}

// assign sets a message field from a vector's text.
func assign(field reflect.Value, text string) error {
	switch p := field.Addr().Interface().(type) {
	case *vmbus.GUID:
		return p.UnmarshalText([]byte(text))
	case *vmbus.UserData:
		_, err := hex.Decode(p[:], []byte(text))
		return err
	}
	n, err := strconv.ParseUint(text, 10, field.Type().Bits())
	field.SetUint(n)
	return err
}
