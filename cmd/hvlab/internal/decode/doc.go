// Package decode explains bytes of the bus: what each field of a control
// message, a message slot, a GPADL's range list or a ring's memory is, where it
// lies and what it means.
//
//	b, err := decode.Bytes(text)                 // hex in any common spelling
//	report, err := decode.Explain(b, decode.Options{})
//	err = report.WriteText(os.Stdout, false)
//
// It has no layouts of its own: messages come from [vmbus.Parse] and
// [vmbus.FieldsOf], range lists from [channel.Range], packets from
// [ringbuffer.Reader], which checks as a receiver would. What those refuse is the
// report's Problem, with the offset from which nothing makes sense.
//
// Every byte of the input is in exactly one field of the report. Fields are in
// the order in which a receiver looks at them, which is that of the offsets,
// except that a ring's reading order may pass the end of the ring once.
package decode
