package vmbus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/hvlab/hvlab/vmbus"
)

func TestVectorsEncode(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			m := v.message(t)
			require.Equal(t, v.Type, m.Type())
			require.Equal(t, map[vmbus.Direction]string{vmbus.GuestToHost: "guest->host", vmbus.HostToGuest: "host->guest"}[m.Type().Direction()], v.Direction)
			require.Equal(t, v.Length, vmbus.Size(m)+8*len(v.words(t)))

			// Into a buffer full of old bytes: padding must be written, not skipped (GC-07).
			dirty := bytes.Repeat([]byte{0xAA}, vmbus.MaxPayloadBytes)
			got := vmbus.AppendWords(vmbus.Append(dirty[:0], m), v.words(t))
			require.Equal(t, v.Hex, fmt.Sprintf("%x", got))

			require.Equal(t, v.Hex, fmt.Sprintf("%x", vmbus.AppendWords(vmbus.Append(nil, m), v.words(t))))
		})
	}
}

func TestVectorsDecode(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			m, tail, err := vmbus.ParseFrom(v.Type.Direction(), v.bytes(t), v.negotiated(t))
			require.NoError(t, err)
			require.Equal(t, v.formName(), vmbus.Name(m))
			require.Equal(t, v.message(t), m)

			want := map[string]string{}
			for name, value := range v.Fields {
				if name != "padding" && name != "padding2" && name != "data" {
					want[name] = fmt.Sprint(value)
				}
			}
			got := map[string]string{}
			for _, f := range vmbus.Fields(m) {
				got[f.Name] = plain(t, f.Value)
			}
			require.Equal(t, want, got)

			require.Len(t, tail, 8*len(v.words(t)), "what is not a word belongs to the form")
			require.Equal(t, v.words(t), vmbus.Words(tail))
		})
	}
}

// TestVectorsAtEveryAlignment is RG-13: u64 fields lie at odd addresses anyway.
func TestVectorsAtEveryAlignment(t *testing.T) {
	for _, v := range vectors(t) {
		want, wantTail, err := vmbus.Parse(v.bytes(t), v.negotiated(t))
		require.NoError(t, err)
		for shift := range 8 {
			b := append(make([]byte, shift, shift+v.Length), v.bytes(t)...)[shift:]
			m, tail, err := vmbus.Parse(b, v.negotiated(t))
			require.NoError(t, err, "%s shifted by %d", v.Name, shift)
			require.Equal(t, want, m, "%s shifted by %d", v.Name, shift)
			require.Equal(t, vmbus.Words(wantTail), vmbus.Words(tail), "%s shifted by %d", v.Name, shift)
			require.Equal(t, b, vmbus.AppendWords(vmbus.Append(make([]byte, shift), m), vmbus.Words(tail))[shift:])
		}
	}
}

// TestVectorsCoverEveryForm keeps the vectors honest: a form without one would
// pass every test above.
func TestVectorsCoverEveryForm(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range vectors(t) {
		seen[v.formName()] = true
	}
	for _, m := range forms() {
		require.True(t, seen[vmbus.Name(m)], "no vector of %s", vmbus.Name(m))
	}
}

// plain writes a field's value as the vectors do: numbers decimal, the rest as
// MarshalText.
func plain(t *testing.T, value any) string {
	t.Helper()
	if v := reflect.ValueOf(value); v.CanUint() {
		return fmt.Sprint(v.Uint())
	}
	b, err := json.Marshal(value)
	require.NoError(t, err)
	var s string
	require.NoError(t, json.Unmarshal(b, &s))
	return s
}
