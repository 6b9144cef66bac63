package services

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"
)

// A TimeSync tells the guest what time it is.
type TimeSync struct{ *Service }

// NewTimeSync returns the time synchronisation service.
func NewTimeSync() *TimeSync {
	return &TimeSync{newService("timesync",
		"9527e630-d0ae-497b-adce-e80ab0175caf", "2dd1ce17-079e-403c-b352-a1921ee207ee",
		Version{4, 0}, Version{3, 0}, Version{1, 0})}
}

// windowsEpoch is 1601-01-01 in Unix seconds; times count 100 ns units from it.
const windowsEpoch = -11644473600

// Flags of a time message.
const (
	timeSync   = 1 // set the clock to it
	timeSample = 2 // a sample to discipline the clock by
)

// fileTime is t in 100 ns units since 1601.
func fileTime(t time.Time) uint64 {
	return uint64(t.Unix()-windowsEpoch)*10_000_000 + uint64(t.Nanosecond()/100)
}

// Set tells the guest to set its clock to host, which was read when the guest's
// reference counter showed reference (100 ns units since the guest started).
func (s *TimeSync) Set(ctx context.Context, host time.Time, reference uint64) error {
	w, err := s.request(kindTimeSync, timeBody(s.Version(), host, reference))
	if err != nil {
		return err
	}
	select {
	case r := <-w:
		return r.err
	case <-ctx.Done():
		return fmt.Errorf("services: timesync: %w", ctx.Err())
	}
}

// timeBody is the message in the form of version v: from 4.0 on it carries the
// reference counter, before that the guest's own time and the round trip.
func timeBody(v Version, host time.Time, reference uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, fileTime(host))
	b = binary.LittleEndian.AppendUint64(b, reference)
	if v.Major >= 4 {
		return append(b, timeSync, 0, 0, 0, 0, 0) // flags, leap flags, stratum, reserved
	}
	b = binary.LittleEndian.AppendUint64(b, 0)
	return append(b, timeSync)
}
