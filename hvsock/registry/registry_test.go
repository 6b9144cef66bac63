package registry

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	_ "github.com/hvlab/hvlab/internal/fixedseed" // the same draws in every run
	"github.com/hvlab/hvlab/vmbus"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var (
	echo    = uuid.MustParse("00001388-facb-11e6-bd58-64006a7986d3") // port 5000
	session = BuiltIn[0].ID
)

// hvsock.md 3: register, enable, disable, list, lookup.
func TestServices(t *testing.T) {
	r := New(BuiltIn...)
	require.NoError(t, r.Register(Service{ID: echo, ElementName: "Echo"}))
	require.Equal(t, []Service{{ID: echo, ElementName: "Echo"}, BuiltIn[0]}, r.Services(), "in the order of their ids")
	require.NoError(t, r.Disable(echo))
	s, known := r.Lookup(echo)
	require.True(t, known)
	require.Equal(t, Service{ID: echo, ElementName: "Echo", Disabled: true}, s, "the rest stays")
	require.NoError(t, r.Enable(echo))
	require.NoError(t, r.Register(Service{ID: echo, ElementName: "Again"}))
	require.Len(t, r.Services(), 2, "it is replaced")
	require.NoError(t, r.Unregister(echo))
	_, known = r.Lookup(echo)
	require.False(t, known)

	for _, err := range []error{
		r.Enable(echo), r.Disable(echo), r.Unregister(echo),
		r.Register(Service{}),
		r.Register(Service{ID: echo, ElementName: "\xff"}),
		r.Register(Service{ID: echo, ElementName: strings.Repeat("x", MaxTextBytes+1)}),
		r.Register(Service{ID: echo, Bind: "D:(A;;FA;;;WD"}),
		r.Register(Service{ID: echo, Connect: "D:(A;FA;WD)"}),
		r.SetDefaults("D:(", ""),
	} {
		var e *ServiceError
		require.ErrorAs(t, err, &e)
		require.ErrorIs(t, err, vmbus.ErrState)
	}
	require.Panics(t, func() { New(Service{}) })
}

func TestTooManyServices(t *testing.T) {
	r := New()
	for i := range MaxServices {
		require.NoError(t, r.Register(Service{ID: uuid.UUID{1, byte(i), byte(i >> 8)}}))
	}
	require.Error(t, r.Register(Service{ID: echo}))
	require.NoError(t, r.Register(Service{ID: uuid.UUID{1}, ElementName: "one that is there"}))
}

// Who watches learns of every change, and may ask the registry.
func TestWatch(t *testing.T) {
	r := New()
	var seen []string
	stop := r.Watch(func(s Service) {
		now, _ := r.Lookup(s.ID)
		seen = append(seen, fmt.Sprint(s.Disabled, now.Disabled))
	})
	require.NoError(t, r.Register(Service{ID: echo}))
	require.NoError(t, r.Disable(echo))
	stop()
	require.NoError(t, r.Enable(echo))
	require.Equal(t, []string{"false false", "true true"}, seen)
}

// hvsock.md 3: what is not registered is EACCES if the host is strict; what is
// registered has its own rules.
func TestPermissions(t *testing.T) {
	onlySystem := Descriptor("D:P(A;;FA;;;SY)")
	r := New(
		Service{ID: echo},
		Service{ID: uuid.UUID{1}, Disabled: true},
		Service{ID: uuid.UUID{2}, Bind: onlySystem, Connect: onlySystem},
		Service{ID: uuid.UUID{3}, NoWildcardBinds: true},
	)
	admin := []string{Administrators}
	for _, test := range []struct {
		q                    Question
		bind, connect, serve error
	}{
		{Question{Service: session}, nil, nil, nil}, // open: anything goes
		{Question{Service: session, Strict: true}, syscall.EACCES, syscall.EACCES, syscall.EACCES},
		{Question{Service: echo, Strict: true, Trustees: admin}, nil, nil, nil},
		{Question{Service: uuid.UUID{1}, Trustees: admin}, nil, syscall.ECONNREFUSED, syscall.ECONNREFUSED},
		{Question{Service: uuid.UUID{2}, Trustees: admin}, syscall.EACCES, syscall.EACCES, nil}, // a guest is not asked who it is
		{Question{Service: uuid.UUID{2}, Trustees: []string{LocalSystem}}, nil, nil, nil},
		{Question{Service: uuid.UUID{3}, Wildcard: true}, syscall.EACCES, nil, nil},
		{Question{Service: uuid.UUID{3}}, nil, nil, nil},
	} {
		for op, pair := range map[string][2]error{
			"bind": {r.MayBind(test.q), test.bind}, "connect": {r.MayConnect(test.q), test.connect}, "serve": {r.MayServe(test.q), test.serve},
		} {
			if pair[1] == nil {
				require.NoError(t, pair[0], "%s %+v", op, test.q)
				continue
			}
			require.ErrorIs(t, pair[0], pair[1], "%s %+v", op, test.q)
			var e *DeniedError
			require.ErrorAs(t, pair[0], &e)
			require.Contains(t, e.Error(), test.q.Service.String())
		}
	}
	require.NoError(t, r.SetDefaults(onlySystem, onlySystem))
	require.ErrorIs(t, r.MayBind(Question{Service: echo, Trustees: admin}), syscall.EACCES, "the default is for services that say nothing")
	require.ErrorIs(t, r.MayConnect(Question{Service: echo, Trustees: admin}), syscall.EACCES)
	require.NoError(t, r.MayBind(Question{Service: uuid.UUID{2}, Trustees: []string{LocalSystem}}))
}

func TestDescriptors(t *testing.T) {
	for _, test := range []struct {
		sddl    Descriptor
		who     string
		allowed bool
	}{
		{"", Administrators, true},
		{"O:BAG:BA", Administrators, true},          // no access list: everything
		{"D:", Administrators, false},               // an empty one: nothing
		{"D:PS:(AU;SA;FA;;;WD)", Everyone, false},   // an empty one before an audit list
		{"D:P(A;;FA;;;SY)", Administrators, false},  //
		{"D:P(A;;FA;;;SY)(A;;FA;;;BA)", "ba", true}, // names in any case
		{"D:(D;;FA;;;BA)(A;;FA;;;WD)", "BA", false}, // the first entry decides
		{"D:(A;;FA;;;WD)(D;;FA;;;BA)", "BA", true},  //
		{"D:(A;IO;FA;;;BA)", "BA", false},           // for children only
		{"D:(A;;;;;BA)", "BA", false},               // no rights
		{"D:(A;;GA;;;S-1-5-32-544)", "S-1-5-32-544", true},
		{"D:(A;;GA", Administrators, false}, // broken: better nobody
	} {
		require.Equal(t, test.allowed, test.sddl.Allows(test.who), "%q for %s", test.sddl, test.who)
	}
}

// A file as regedit exports it.
const exported = "Windows Registry Editor Version 5.00\r\n" +
	"\r\n" +
	"[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Virtualization\\GuestCommunicationServices]\r\n" +
	"\r\n" +
	"[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Virtualization\\GuestCommunicationServices\\00001388-facb-11e6-bd58-64006a7986d3]\r\n" +
	"\"ElementName\"=\"Echo \\\"5000\\\" \\\\ test\"\r\n" +
	"\"Something\"=hex(7):61,00,\\\r\n" +
	"  00,00\r\n" +
	"\r\n" +
	"[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Windows NT\\CurrentVersion\\Virtualization\\GuestCommunicationServices\\999E53D4-3D5C-4C3E-8779-BED06EC056E1]\r\n" +
	"\"ElementName\"=\"VM Session Service\"\r\n" +
	"\r\n"

func TestLoad(t *testing.T) {
	want := []Service{{ID: echo, ElementName: `Echo "5000" \ test`}, BuiltIn[0]}
	for name, file := range map[string][]byte{
		"UTF-16":      append([]byte{0xFF, 0xFE}, encodeUTF16(exported)...),
		"UTF-8":       []byte(exported),
		"UTF-8 BOM":   []byte("\uFEFF" + exported),
		"LF":          []byte(strings.ReplaceAll(exported, "\r\n", "\n")),
		"old":         []byte("REGEDIT4\n" + exported[len(header5):]),
		"other keys":  []byte(exported + "[HKEY_CURRENT_USER\\Software]\n\"ElementName\"=dword:1\n@=\"x\"\n"),
		"deeper keys": []byte(exported + "[" + Key + "\\" + session.String() + "\\More]\n\"ElementName\"=\"no\"\n"),
		"deleted":     []byte(exported + "[" + Key + "\\" + uuid.UUID{9}.String() + "]\n\"ElementName\"=\"gone\"\n[-" + Key + "\\{" + uuid.UUID{9}.String() + "}]\n"),
		"hex string":  []byte(strings.Replace(exported, `="VM Session Service"`, `=hex(1):`+hexOf("VM Session Service\x00"), 1)),
		"comment":     []byte(strings.Replace(exported, "\r\n\r\n", "\r\n; =hex \\\r\n", 1)),
	} {
		r, err := Load(bytes.NewReader(file))
		require.NoError(t, err, name)
		require.Equal(t, want, r.Services(), name)
	}
}

func hexOf(s string) string {
	return strings.ReplaceAll(fmt.Sprintf("% x", encodeUTF16(s)), " ", ",")
}

// The values of HCS's table, which Windows itself ignores under this key.
func TestLoadHCSValues(t *testing.T) {
	file := header5 + "\n[" + Key + "]\n\"DefaultBindSecurityDescriptor\"=\"D:\"\n\"DefaultConnectSecurityDescriptor\"=\"D:(A;;FA;;;BA)\"\n" +
		"[" + Key + "\\" + echo.String() + "]\n\"disabled\"=dword:00000001\n\"AllowWildcardBinds\"=hex(4):00,00,00,00\n" +
		"\"BindSecurityDescriptor\"=\"D:P(A;;FA;;;SY)\"\n\"ConnectSecurityDescriptor\"=\"D:P(A;;FA;;;WD)\"\n"
	r, err := Load(strings.NewReader(file))
	require.NoError(t, err)
	require.Equal(t, []Service{{ID: echo, Disabled: true, NoWildcardBinds: true, Bind: "D:P(A;;FA;;;SY)", Connect: "D:P(A;;FA;;;WD)"}}, r.Services())
	require.Equal(t, Service{Bind: "D:", Connect: "D:(A;;FA;;;BA)"}, r.defaults())

	r, err = Load(strings.NewReader(file + "\"AllowWildcardBinds\"=-\n\"Disabled\"=-\n\"ConnectSecurityDescriptor\"=-\n"))
	require.NoError(t, err, "a value that the file deletes is as if it had not been there")
	require.Equal(t, []Service{{ID: echo, Bind: "D:P(A;;FA;;;SY)"}}, r.Services())
	r, err = Load(strings.NewReader(file + "[-" + Key + "]\n"))
	require.NoError(t, err)
	require.Empty(t, r.Services())
}

// Errors say where and what.
func TestLoadErrors(t *testing.T) {
	service := header5 + "\n[" + Key + "\\" + echo.String() + "]\n"
	for file, want := range map[string]string{
		"":                                               "line 1: this is no .reg file",
		"; hello\nhello\n":                               "line 2: this is no .reg file",
		header5 + "\nhello\n":                            "line 2: neither a key",
		header5 + "\n[key\n":                             "line 2: the key has no closing bracket",
		header5 + "\n[" + Key + "\\echo]":                `line 2: the service's key "echo" is no GUID`,
		service + "\"ElementName\n":                      "line 3: the name of the value has no closing quote",
		service + "\"ElementName\"\n":                    "line 3: the value has no equals sign",
		service + "\"ElementName\"=\"x\n":                "line 3: the string has no closing quote",
		service + "\"ElementName\"=\"x\"y\n":             "line 3: the string has no closing quote",
		service + "\"ElementName\"=x\n":                  "line 3: the data is neither",
		service + "\"ElementName\"=dword:1\n":            "line 3: ElementName is no string",
		service + "\"Disabled\"=\"1\"\n":                 "line 3: Disabled is no number",
		service + "\"Disabled\"=dword:xyz\n":             "line 3: the number",
		service + "\"x\"=hex:1\n":                        "line 3: the hex data is not pairs",
		service + "\"x\"=hex\n":                          "line 3: the hex data has no colon",
		service + "\"x\"=hex:\\\n01,\\\n0\n":             "line 3: the hex data",
		service + "\"BindSecurityDescriptor\"=\"D:(\"\n": "line 3: the security descriptor",
		service + "\"ElementName\"=\"" + strings.Repeat("x", MaxTextBytes+1) + "\"\n\n[x]": "line 2: registry: service",
		service + ";" + strings.Repeat("x", MaxLineBytes) + "\n":                           "line 3: the line is longer",
		"\xff\xfe\x00":                      "half a character",
		"\xff":                              "neither UTF-16LE",
		strings.Repeat(" ", MaxFileBytes+1): "larger than",
	} {
		_, err := Load(strings.NewReader(file))
		var e *SyntaxError
		require.ErrorAs(t, err, &e, "%.80q", file)
		require.Contains(t, err.Error(), want, "%.80q", file)
		require.ErrorIs(t, err, vmbus.ErrState)
	}
	broken := errors.New("broken disk")
	_, err := Load(failing{broken})
	require.ErrorIs(t, err, broken)
	require.ErrorIs(t, New().Save(failing{broken}), broken)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Save writes what regedit would, byte for byte.
func TestSave(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, New(BuiltIn...).Save(&b))
	want := header5 + "\r\n\r\n[" + Key + "]\r\n\r\n[" + Key + "\\999E53D4-3D5C-4C3E-8779-BED06EC056E1]\r\n\"ElementName\"=\"VM Session Service\"\r\n\r\n"
	require.Equal(t, append([]byte{0xFF, 0xFE}, encodeUTF16(want)...), b.Bytes())
}

// Whatever can be registered survives a file.
func TestSaveLoad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := New()
		sddl := rapid.SampledFrom([]Descriptor{"", "D:", "D:P(A;;FA;;;SY)", "O:BAD:(D;;GA;;;WD)"})
		require.NoError(t, r.SetDefaults(sddl.Draw(t, "bind"), sddl.Draw(t, "connect")))
		for range rapid.IntRange(0, 4).Draw(t, "services") {
			require.NoError(t, r.Register(Service{
				ID:          uuid.UUID(rapid.SliceOfN(rapid.ByteRange(1, 255), 16, 16).Draw(t, "id")),
				ElementName: rapid.String().Draw(t, "name"),
				Disabled:    rapid.Bool().Draw(t, "disabled"), NoWildcardBinds: rapid.Bool().Draw(t, "wildcard"),
				Bind: sddl.Draw(t, "own bind"), Connect: sddl.Draw(t, "own connect"),
			}))
		}
		var b bytes.Buffer
		require.NoError(t, r.Save(&b))
		again, err := Load(&b)
		require.NoError(t, err)
		require.Equal(t, r.Services(), again.Services())
		require.Equal(t, r.defaults(), again.defaults())
	})
}

// FuzzLoad: a file is refused with a line, or becomes a registry that Save and
// Load keep as it is.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(exported))
	f.Add(append([]byte{0xFF, 0xFE}, encodeUTF16(exported)...))
	f.Add([]byte(header5 + "\n[-" + Key + "]\n[" + Key + "]\n\"DefaultBindSecurityDescriptor\"=\"D:(A;;FA;;;BA)\"\n@=-"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := Load(bytes.NewReader(file))
		if err != nil {
			if e, ok := err.(*SyntaxError); !ok || e.Line < 0 {
				t.Fatalf("%v", err)
			}
			return
		}
		var b bytes.Buffer
		if err := r.Save(&b); err != nil {
			t.Fatal(err)
		}
		again, err := Load(&b)
		if err != nil {
			t.Fatalf("it does not read what it wrote: %v", err)
		}
		require.Equal(t, r.Services(), again.Services())
	})
}
