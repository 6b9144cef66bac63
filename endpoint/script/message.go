package script

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// send is a message the guest's kernel posts past its core: "send CloseChannel
// channel_id=1". Fields that are not named are zero; "words=(...)" follow a
// GPADL message.
func (w *World) send(a *args) error {
	from := endpoint.Source{Port: num[uint32](a, "port", 1), Trusted: a.has("trusted")}
	if b := a.message(); b != nil {
		if w.Host.Refuses(b) {
			w.log("the hypervisor refuses the post")
			return nil
		}
		w.arrive(from, b)
	}
	return nil
}

// tell is a message of a host other than ours, handed to the guest core.
func (w *World) tell(a *args) error {
	if b := a.message(); b != nil {
		w.dropped("guest", w.Guest.Receive(b))
	}
	return nil
}

// message builds the message the arguments name by its fields; nil if they are
// wrong.
func (a *args) message() []byte {
	if len(a.Args) == 0 || a.Args[0].Values != nil {
		a.wrong(a.Name, "which message? write for example %s CloseChannel channel_id=1", a.Name)
		return nil
	}
	name := a.Args[0].Key
	m := newMessage(name)
	if m == nil {
		a.wrong(a.Name, "no message is called %q; write one of: %s", name, strings.Join(messageNames(), ", "))
		return nil
	}
	a.known[name] = true
	fields := map[string]reflect.Value{}
	wireFields(reflect.ValueOf(m).Elem(), fields)
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if a.has(key) {
			a.setField(fields[key], key)
		}
	}
	var words []uint64
	a.known["words"] = true
	for _, arg := range a.Args[1:] {
		if arg.Key == "words" {
			for _, v := range arg.Values {
				words = append(words, a.number("words", v))
			}
		}
	}
	if a.err != nil {
		return nil
	}
	return vmbus.AppendWords(vmbus.Append(nil, m), words)
}

var messages = []vmbus.Message{
	&vmbus.OfferChannel{}, &vmbus.RescindChannelOffer{}, &vmbus.RequestOffers{}, &vmbus.AllOffersDelivered{},
	&vmbus.OpenChannel{}, &vmbus.OpenChannel2{}, &vmbus.OpenResult{}, &vmbus.CloseChannel{}, &vmbus.GPADLHeader{},
	&vmbus.GPADLBody{}, &vmbus.GPADLCreated{}, &vmbus.GPADLTeardown{}, &vmbus.GPADLTorndown{}, &vmbus.RelIDReleased{},
	&vmbus.InitiateContact{}, &vmbus.InitiateContact2{}, &vmbus.VersionResponse{}, &vmbus.VersionResponse2{},
	&vmbus.VersionResponse3{}, &vmbus.Unload{}, &vmbus.UnloadComplete{}, &vmbus.OpenReservedChannel{},
	&vmbus.CloseReservedChannel{}, &vmbus.CloseReservedChannelResponse{}, &vmbus.TLConnectRequest{},
	&vmbus.TLConnectRequest2{}, &vmbus.ModifyChannel{}, &vmbus.TLConnectResult{}, &vmbus.ModifyChannelResponse{},
	&vmbus.ModifyConnection{}, &vmbus.ModifyConnectionResponse{}, &vmbus.Pause{}, &vmbus.PauseResponse{}, &vmbus.Resume{},
}

// newMessage returns a message of zeros; nil if there is none of that name.
func newMessage(name string) vmbus.Message {
	for _, m := range messages {
		if vmbus.Name(m) == name || m.Type().String() == name {
			return reflect.New(reflect.TypeOf(m).Elem()).Interface().(vmbus.Message)
		}
	}
	return nil
}

func messageNames() []string {
	var names []string
	for _, m := range messages {
		names = append(names, vmbus.Name(m))
	}
	slices.Sort(names)
	return names
}

// wireFields collects the fields of a message by the specification's names.
func wireFields(v reflect.Value, into map[string]reflect.Value) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous {
			wireFields(v.Field(i), into)
		} else if name := f.Tag.Get("wire"); name != "" {
			into[name] = v.Field(i)
		}
	}
}

// setField gives a field of a message the value of the argument key.
func (a *args) setField(f reflect.Value, key string) {
	switch f.Interface().(type) {
	case vmbus.GUID:
		f.Set(reflect.ValueOf(a.guid(key, "")))
		return
	case vmbus.Version:
		f.SetUint(uint64(a.version(key)))
		return
	case vmbus.UserData:
		f.Set(reflect.ValueOf(a.userData(key)))
		return
	}
	if !f.CanUint() {
		a.wrong(key, "it cannot be given here; write the message in hexadecimal under \"post\" or \"deliver\"")
		return
	}
	n := num[uint64](a, key, 0)
	if f.OverflowUint(n) {
		a.wrong(key, "%d does not fit into %d bytes", n, f.Type().Size())
		return
	}
	f.SetUint(n)
}
