package ringbuffer

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// sectionTests says where each section of ringbuffer.md is tested: here, or in
// package channel for pipes.
var sectionTests = map[string][]string{
	"2":     {"TestInit", "TestControlWords"},
	"2.1":   {"TestInit"}, // not maintained: stays zero
	"2.2":   {"TestSignalWriter", "TestInit"},
	"2.3":   {"TestInit", "TestResume"},
	"3":     {"TestModel", "TestMonotonic", "TestWriterIndices"},
	"4.1":   {"TestLongestPacket", "TestAppendHeader", "TestVectors"},
	"4.2":   {"TestVectors"},
	"4.3":   {"TestPaddingIsZero", "TestModel"},
	"4.4":   {"TestAppendSizes", "TestPipePacketTotals"},
	"5":     {"TestVectors", "TestHardening", "TestModel"},
	"5.1":   {"TestTransferPages"},
	"5.2":   {"TestGPADirectShapes", "TestRangeListErrors"},
	"6":     {"TestRequestorModel", "TestRequestorDefaultLimit"},
	"7":     {"TestPipeBytes", "TestPipeSeeds", "TestPipeModel", "TestPipeMessages", "TestPipeTooLong"},
	"8.1":   {"TestSignalReader"},
	"8.2":   {"TestSignalWriter", "TestSignalAfterRefill", "TestSignalOnAnyFree", "TestSetPending"},
	"8.3":   {"TestMaskAndRecheck", "TestPipeMask"},
	"8.4":   {"TestNoLostWakeup", "TestPipeNoLostWakeup"},
	"9":     {"TestOrder", "TestNoLostWakeup"},
	"9.1":   {"TestMutate"},
	"9.2":   {"TestOrder"},
	"10":    {"TestRevert", "TestStream", "TestPipeSaveKeepsFIN"},
	"11":    {"TestGeometry", "TestVectors", "TestModel"},
	"12":    {"TestSizes", "TestPipeWritable", "TestPipeLinuxFill"},
	"13.1":  {"TestMutate", "TestPipeMutate"},
	"13.2":  {"TestHardening", "TestWriterIndices"},
	"13.3":  {"TestHardening"},
	"13.4":  {"TestHardening", "TestSmallPacketAgreesWithHold"},
	"13.5":  {"TestHardening"},
	"13.6":  {"TestHardening", "TestTransferPages", "TestGPADirectShapes"},
	"13.7":  {"TestExtensionIsPrivate", "TestDescriptorLoadedOnce"},
	"13.8":  {"TestMutate", "TestDescriptorLoadedOnce"},
	"13.9":  {"TestOversizedPacketIsAnError", "TestNextBuffer"},
	"13.10": {"TestPipeSeeds", "TestPipeTooLong", "TestPipeMutate"},
	"13.11": {"TestRequestorModel"},
	"13.12": {"TestOwnIndexIsPrivate"},
	"13.13": {"TestHardening"},
	"13.14": {"TestSignalWithoutData"},
	"13.15": {"TestControlWords", "TestHostileControlPage"},
	"14":    {"TestVectors", "TestPipeBytes", "TestPipeLinuxFill"},
	"15":    {"TestVectors", "TestModel", "TestNoLostWakeup", "TestHostileData", "TestResume"},
	"16":    {"TestVectors"},
}

// TestSectionIndex holds the index against the tests there are.
func TestSectionIndex(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range []string{".", "../channel"} {
		pkgs, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		require.NoError(t, err)
		require.NotEmpty(t, pkgs)
		for _, name := range pkgs {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					found[fn.Name.Name] = true
				}
			}
		}
	}
	for section, tests := range sectionTests {
		for _, name := range tests {
			require.True(t, found[name], "section %s: there is no %s", section, name)
		}
	}
}
