package vmbus

import (
	"encoding/binary"
	"fmt"
	"reflect"
)

// A Field is one named value of a message, and where it lies.
type Field struct {
	Name   string // as in the specification: "channel_id"
	Value  any    // of the struct field's own type: ChannelID, GUID, uint32, ...
	Offset int    // of its first byte; in a message, the header counts
	Bytes  int
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
func Fields(m Message) []Field { return FieldsOf(m, HeaderBytes) }

// FieldsOf is Fields for any packed struct whose fields have wire tags, given by
// pointer, such as *HVSockUserData; offset is where the struct begins.
func FieldsOf(packed any, offset int) []Field {
	fields, _ := appendFields(nil, reflect.ValueOf(packed).Elem(), offset)
	return fields
}

// appendFields appends the fields of v, which begins at offset, and returns
// where v ends.
func appendFields(fields []Field, v reflect.Value, offset int) ([]Field, int) {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous { // the shorter form this one extends
			fields, offset = appendFields(fields, v.Field(i), offset)
			continue
		}
		size := binary.Size(reflect.Zero(f.Type).Interface())
		if f.Name != "_" {
			fields = append(fields, Field{f.Tag.Get("wire"), v.Field(i).Interface(), offset, size})
		}
		offset += size
	}
	return fields, offset
}

// Name is the name of m's form, as in "OpenChannel2"; m.Type().String() is that
// of its type.
func Name(m Message) string { return reflect.TypeOf(m).Elem().Name() }
