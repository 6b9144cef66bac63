package vmbus

import (
	"fmt"
	"reflect"
)

// A Field is one named value of a message.
type Field struct {
	Name  string // as in the specification: "channel_id"
	Value any    // of the struct field's own type: ChannelID, GUID, uint32, ...
}

// String is name=value, as in "channel_id=2"; a status is written by name.
func (f Field) String() string {
	if status, ok := f.Value.(uint32); ok && f.Name == "status" {
		return f.Name + "=" + StatusText(status)
	}
	return fmt.Sprintf("%s=%v", f.Name, f.Value)
}

// Fields lists the fields of m in wire order under the names of the
// specification, those of an embedded shorter form first. Padding is left out,
// as are range words. It is for traces and tools: it uses reflection.
func Fields(m Message) []Field {
	return appendFields(nil, reflect.ValueOf(m).Elem())
}

func appendFields(fields []Field, v reflect.Value) []Field {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch {
		case f.Anonymous: // the shorter form this one extends
			fields = appendFields(fields, v.Field(i))
		case f.Name != "_":
			fields = append(fields, Field{Name: f.Tag.Get("wire"), Value: v.Field(i).Interface()})
		}
	}
	return fields
}

// Name is the name of m's form, as in "OpenChannel2"; m.Type().String() is that
// of its type.
func Name(m Message) string { return reflect.TypeOf(m).Elem().Name() }
