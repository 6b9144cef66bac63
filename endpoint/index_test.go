package endpoint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/hvlab/hvlab/internal/golden"
	"github.com/stretchr/testify/require"
)

// sectionTests says where each section of the specification is tested: grep for
// the section as it stands here. "package.TestName" is a test, anything else a
// scenario in testdata/scenario. Of 9.1 and 9.7 only what Linux needs to attach is
// there, and no more is meant to be.
var sectionTests = map[string][]string{
	"vmbus-control.md 0.1": {"vmbus.TestLimits", "vmbus.TestLayoutSizes", "offers.TestIDLimit", "endpoint.TestMonitorLimit"},
	"vmbus-control.md 1.1": {"endpoint.TestObservedHost", "P04-P05-foreign-sint-vtl"}, // the actors; the paravisor's rules
	"vmbus-control.md 1.2": {"vmbus/synic.TestPostInterruptsTheTarget", "vmbus/synic.TestPostMessageStatuses", "P18-outbox-order", "P08-message-vp-at-3.0"},
	"vmbus-control.md 1.3": {"01-connect", "02-below-five", "D06-message-connection", "vmbus/synic.TestPostMessageStatuses"},
	"vmbus-control.md 1.4": {"endpoint/live.TestLegacyDoorbell", "legacy-0.13", "not-dedicated", "P08-interrupt-page-below-2.4", "D07-D08-signal-connection"},

	"vmbus-control.md 2.1": {"vmbus.TestVersions", "endpoint.TestEveryVersion", "P02-S09-bad-contacts"},
	"vmbus-control.md 2.2": {"vmbus.TestFeatureBits", "P06-feature-flags", "P34-server-pages-at-5.3"},
	"vmbus-control.md 2.3": {"01-connect", "03-no-common-version", "endpoint.TestObservedGuest", "internal/kerneltest.TestKernelVersionsOfTheHost"},
	"vmbus-control.md 2.4": {"vmbus.TestTargetInfo", "P08-interrupt-page-below-2.4", "P08-no-interrupt-page-at-2.4"},
	"vmbus-control.md 2.5": {"P02-S09-bad-contacts", "P04-P05-foreign-sint-vtl", "P37-client-id", "endpoint/live.TestContactsThatFail"},
	"vmbus-control.md 2.6": {"P03-accepted-contact", "P23-server-monitor-pages", "D01-setup-failure", "D01-setup-failure-openvmm", "D01-setup-failure-openvmm-6.0", "02-below-five"},
	"vmbus-control.md 2.7": {"P27-unload", "P27-unload-without-channels", "P28-contact-while-connected", "P20-reserved-channel", "P24-channel-order", "D22-unload-while-not-connected"},

	"vmbus-control.md 3.0":   {"vmbus.TestParseEveryLength", "vmbus.TestParseErrors", "vmbus.TestMessageTable", "HC-02", "HC-17", "D19-unknown-type", "D20-wrong-direction"},
	"vmbus-control.md 3.1":   {"vmbus.TestVectorsEncode", "P09-whole-life-at-5.3", "D09-reserved-offer-fields", "D11-optional-mmio", "sub-channel-rules"},
	"vmbus-control.md 3.1.1": {"vmbus.TestFlagTexts", "D10-offer-flags", "P25-confidential-channels", "P26-pinned-memory"},
	"vmbus-control.md 3.1.2": {"vmbus.TestPipeUserData", "vmbus.TestHVSockUserData", "D12-P01-pipe-offer", "10-guest-dials-host", "13-host-dials-guest"},
	"vmbus-control.md 3.2":   {"GC-05", "P40-hot-add-and-remove", "D25-everything-is-answered"},
	"vmbus-control.md 3.3":   {"01-connect", "request-offers-twice", "P13-published-in-every-phase", "P40-hot-add-and-remove", "endpoint.TestOutboxLimit"},
	"vmbus-control.md 3.4":   {"vmbus.TestVectorsDecode", "P10-guest-signal-parameters", "P10-redirect-interrupt", "P10-redirect-not-granted", "P22-monitored-offers"},
	"vmbus-control.md 3.5":   {"P38-open-refused", "D16-open-failure-status", "D25-everything-is-answered", "GC-01"},
	"vmbus-control.md 3.6":   {"close-and-reopen", "D17-close-in-wrong-state"},
	"vmbus-control.md 3.7":   {"vmbus.TestWordsRoundTrip", "vmbus.TestWordsIgnoreARest", "D15-surplus-gpadl-body", "channel.TestAnnounceVectors"},
	"vmbus-control.md 3.8":   {"P29-gpadl-refused-then-used", "S03-S04-gpadl-refusals", "D25-everything-is-answered"},
	"vmbus-control.md 3.9":   {"release-while-open", "D18-release-ignored", "D25-everything-is-answered"},
	"vmbus-control.md 3.10":  {"vmbus.TestParseChoosesTheForm", "vmbus.TestVectorsDecode", "P37-client-id", "P02-S09-bad-contacts"},
	"vmbus-control.md 3.11":  {"vmbus.TestVectorsEncode", "P03-accepted-contact", "P23-server-monitor-pages"},
	"vmbus-control.md 3.12":  {"P27-unload", "GC-09-slow-unload", "rescind-during-unload-0.13"},
	"vmbus-control.md 3.13":  {"P20-reserved-channel", "P21-close-reserved-while-disconnected", "reserved-answer-lost", "reserved-answer-lost-other-id", "reserved-below-4.0", "3.13-reserved-twice", "3.13-reserve-refused-after-reconnect", "endpoint/live.TestRawRequests"},
	"vmbus-control.md 3.14":  {"D26-P12-socket-request-forms", "11-guest-dials-nobody", "12-guest-dials-nobody-at-4-0", "endpoint.TestSocketRequestLimit"},
	"vmbus-control.md 3.15":  {"P11-modify-without-response", "P11-no-modify-at-4.0", "GC-10-P38-modify-channel", "D25-everything-is-answered"},
	"vmbus-control.md 3.16":  {"P19-modify-connection", "P19-modify-connection-not-granted", "D21-modify-connection-refused", "modify-connection-while-monitored"},
	"vmbus-control.md 3.17":  {"pause-and-resume", "pause-ended-by-contact", "pause-not-granted", "S12-paused-host-drops", "endpoint/live.TestPauseLive"},

	"vmbus-control.md 4.1": {"channel.TestParseRangesRefusals", "channel.TestRangePages", "S03-S04-gpadl-refusals", "HC-14"},
	"vmbus-control.md 4.2": {"channel.TestAnnounceMessageCounts", "channel.TestAssemblyRoundTrip", "D15-surplus-gpadl-body", "HC-01"},
	"vmbus-control.md 4.3": {"P29-gpadl-refused-then-used", "P32-gpadl-bodies-after-rescind", "HC-12", "D27-teardown-after-rescind", "channel.TestSharedMemoryLimit"},
	"vmbus-control.md 4.4": {"channel.TestSplitRings", "S08-bad-ring-pairs", "D16-open-failure-status"},

	"vmbus-control.md 5.1": {"endpoint.TestTables", "contact-while-connecting", "contact-after-failed-setup", "contact-replaced-while-mapping", "P28-contact-while-connected", "P21-reset-while-disconnected", "5.1-reset-while-connecting", "5.1-reset-while-set-up-fails", "5.1-reset-discards-answers", "5.1-contact-while-being-reset"},
	"vmbus-control.md 5.2": {"endpoint.TestTables", "D17-close-in-wrong-state", "HC-09", "P46-revoke-release-offer", "HC-04-P33-reset-of-stopped-device", "5.2-unload-while-device-opens", "5.2-unload-while-device-refuses"},
	"vmbus-control.md 5.3": {"offers.TestIDReuse", "offers.TestReofferWaitsForRelease", "HC-09", "HC-09-reserved", "P46-release-revoke-offer"},
	"vmbus-control.md 5.4": {"endpoint.TestTables", "channel.TestGPADLIDScope", "P30-incomplete-gpadl-and-reset", "revoke-while-letting-go",
		"5.4-device-refuses-gpadl", "5.4-revoke-while-letting-go", "5.4-unload-while-gpadl-offered", "5.4-unload-while-gpadl-refused"},
	"vmbus-control.md 5.5": {"P18-outbox-order", "endpoint.TestOutboxLimit", "endpoint/live.TestIncomingLimit", "endpoint/live.TestWrittenBeforeOpenResult", "reserved-answer-lost"},
	"vmbus-control.md 5.6": {"10-guest-dials-host", "11-guest-dials-nobody", "13-host-dials-guest", "endpoint/live.TestSocketRequests"},

	"vmbus-control.md 6.1": {"P36-connect-in-wrong-state", "P27-unload", "vmbus/synic.TestMessagesAndEventsOnOnePage"},
	"vmbus-control.md 6.2": {"endpoint.TestTables", "GC-13-use-before-open", "GC-20-never-answered", "14-linux-after-rescind", "internal/kerneltest.TestKernelRescinds"},
	"vmbus-control.md 6.3": {"P45-offer-of-id-in-use", "GC-17-isolated-guest", "D32-sub-channel-without-primary-linux", "P40-hot-add-and-remove"},
	"vmbus-control.md 6.4": {"GC-01", "GC-01-answered", "GC-15-P41-late-gpadl-answers", "P32-gpadl-bodies-after-rescind", "unload-after-rescind", "internal/kerneltest.TestKernelRescinds"},
	"vmbus-control.md 6.5": {"D32-sub-channel-without-primary", "GC-21"},

	"vmbus-control.md 7.1": {"sub-channel-rules", "sub-channel-below-2.4", "sub-channel-reoffered-after-primary", "HC-13-P35-sub-channels"},
	"vmbus-control.md 7.2": {"unknown-vp", "endpoint/live.TestUnknownVP"},
	"vmbus-control.md 7.3": {"GC-10-P38-modify-channel", "P11-modify-without-response", "GC-20-modify-in-flight", "endpoint/live.TestModifyChannel"},
	"vmbus-control.md 8":   {"endpoint/live.TestMonitoredNotification", "offers.TestMonitorIDs", "P22-monitored-offers", "P22-no-monitor-pages", "modify-connection-while-monitored"},

	"vmbus-control.md 9.1": {"sim/kvmguest.TestGuestCPUID", "sim/kvmguest.TestMachineCPUID"},
	"vmbus-control.md 9.2": {"vmbus/synic.TestResetValues", "vmbus/synic.TestRegistersKeepWhatIsWritten", "vmbus/synic.TestRefusedMSRAccesses", "sim/kvmguest.TestMSRs", "sim/kvmguest.TestReferenceTSCPage"},
	"vmbus-control.md 9.3": {"vmbus/synic.TestSlotBytes", "vmbus/synic.TestReadSlot"},
	"vmbus-control.md 9.4": {"vmbus/synic.TestSignalSetsTheRightBit", "vmbus/synic.TestSignalEdgesAgainstModel", "vmbus/synic.TestScanFlags"},
	"vmbus-control.md 9.5": {"vmbus/synic.TestOccupiedSlot", "vmbus/synic.TestEOMOfAFullSlot", "vmbus/synic.TestSlotAgainstModel", "vmbus/synic.TestSlotStress"},
	"vmbus-control.md 9.6": {"vmbus/synic.TestHypercall", "vmbus/synic.TestPostMessageStatuses", "vmbus/synic.TestSignalEventStatuses", "endpoint/live.TestPostRetryLimit", "sim/kvmguest.TestMachineHypercall"},
	"vmbus-control.md 9.7": {"sim/kvmguest.TestVMBusDevice", "sim/kvmguest.TestACPIWalk"},

	"vmbus-control.md 10.1": {"vmbus.TestGUIDOrder", "vmbus.TestGUIDRoundTrip"},
	"vmbus-control.md 10.2": {"vmbus.TestDevices", "vmbus.TestInstances", "vmbus.TestDeviceName"},

	"vmbus-control.md 11.1": {"vmbus.TestVectorsEncode", "vmbus.TestVectorsDecode"},
	"vmbus-control.md 11.2": {"vmbus.TestVectorsEncode", "vmbus.TestVectorsDecode", "channel.TestAnnounceVectors"},
	"vmbus-control.md 11.3": {"vmbus/synic.TestPostBlockBytes", "vmbus/synic.TestSlotBytes"},
	"vmbus-control.md 11.4": {"11.4-reference-exchange"},

	// Each disagreement, with the option that selects the other behaviour.
	"vmbus-control.md 12, row 1":  {"D01-setup-failure", "D01-setup-failure-openvmm"},
	"vmbus-control.md 12, row 2":  {"D02-no-version-echo"},
	"vmbus-control.md 12, row 3":  {"D03-D04-padded-messages"},
	"vmbus-control.md 12, row 4":  {"D03-D04-padded-messages"},
	"vmbus-control.md 12, row 5":  {"D05-old-host", "endpoint.TestEveryVersion"},
	"vmbus-control.md 12, row 6":  {"D06-message-connection"},
	"vmbus-control.md 12, row 7":  {"D07-D08-signal-connection"},
	"vmbus-control.md 12, row 8":  {"D07-D08-signal-connection"},
	"vmbus-control.md 12, row 9":  {"D09-reserved-offer-fields"},
	"vmbus-control.md 12, row 10": {"D10-offer-flags"},
	"vmbus-control.md 12, row 11": {"D11-optional-mmio"},
	"vmbus-control.md 12, row 12": {"D12-P01-pipe-offer"},
	"vmbus-control.md 12, row 13": {"D13-silent-gpadl", "S03-S04-gpadl-refusals"},
	"vmbus-control.md 12, row 14": {"D14-gpadl-id-scope", "D14-gpadl-id-scope-qemu"},
	"vmbus-control.md 12, row 15": {"D15-surplus-gpadl-body"},
	"vmbus-control.md 12, row 16": {"D16-open-failure-status"},
	"vmbus-control.md 12, row 17": {"D17-close-in-wrong-state"},
	"vmbus-control.md 12, row 18": {"D18-release-ignored"},
	"vmbus-control.md 12, row 19": {"D19-unknown-type", "D19-unknown-type-qemu"},
	"vmbus-control.md 12, row 20": {"D20-wrong-direction"},
	"vmbus-control.md 12, row 21": {"D21-modify-connection-refused"},
	"vmbus-control.md 12, row 22": {"D22-unload-while-not-connected", "D22-unload-while-not-connected-qemu"},
	"vmbus-control.md 12, row 23": {"D23-contact-while-connected", "D23-contact-while-connected-qemu"},
	"vmbus-control.md 12, row 24": {"D24-message-vp-below-3.0"},
	"vmbus-control.md 12, row 25": {"D25-everything-is-answered", "GC-20-never-answered"},
	"vmbus-control.md 12, row 26": {"D26-P12-socket-request-forms"},
	"vmbus-control.md 12, row 27": {"D27-teardown-after-rescind", "14-linux-after-rescind"},
	"vmbus-control.md 12, row 28": {"vmbus/synic.TestPostMessageStatuses"},
	"vmbus-control.md 12, row 29": {"endpoint/live.TestIncomingLimit"},
	"vmbus-control.md 12, row 30": {"D30-no-reserved-channels"},
	"vmbus-control.md 12, row 31": {"vmbus/synic.TestReadSlot", "sim/kvmguest.TestGuestCPUID"}, // a timer's message in VMBus's slot is not VMBus's; ours advertises no timers
	"vmbus-control.md 12, row 32": {"D32-sub-channel-without-primary", "D32-sub-channel-without-primary-linux"},

	"vmbus-control.md 13.1":  {"vmbus.TestLayoutSizes", "channel.TestAnnounceMessageCounts"},
	"vmbus-control.md 13.2":  {"GC-01", "GC-01-answered"},
	"vmbus-control.md 13.3":  {"HC-09", "offers.TestIDReuse"},
	"vmbus-control.md 13.4":  {"10-guest-dials-host", "11.4-reference-exchange"},
	"vmbus-control.md 13.5":  {"02-below-five", "P03-accepted-contact"},
	"vmbus-control.md 13.6":  {"01-connect"},
	"vmbus-control.md 13.7":  {"11-guest-dials-nobody", "10-guest-dials-host"},
	"vmbus-control.md 13.8":  {"vmbus.TestGUIDOrder", "vmbus.TestHVSockUserData"},
	"vmbus-control.md 13.9":  {"vmbus.TestLayoutSizes", "D21-modify-connection-refused"},
	"vmbus-control.md 13.10": {"vmbus/synic.TestOccupiedSlot", "vmbus/synic.TestSlotAgainstModel"},
	"vmbus-control.md 13.11": {"D16-open-failure-status", "11-guest-dials-nobody"},
	"vmbus-control.md 13.12": {"vmbus/synic.TestSignalSetsTheRightBit", "P09-whole-life-at-5.3"},
}

// sections is every section of vmbus-control.md that says something to test, with
// the number of sections below it: "2": 7 stands for 2.1 to 2.7.
var sections = map[string]int{"1": 4, "2": 7, "3": 17, "4": 4, "5": 6, "6": 5, "7": 3, "9": 7, "10": 2, "11": 4, "13": 12}

// TestSectionIndex: no section is without a test, and the index names only what
// there is.
func TestSectionIndex(t *testing.T) {
	want := []string{"0.1", "3.0", "3.1.1", "3.1.2", "8"}
	for section, below := range sections {
		for i := range below {
			want = append(want, section+"."+strconv.Itoa(i+1))
		}
	}
	for row := range 32 {
		want = append(want, "12, row "+strconv.Itoa(row+1))
	}
	for _, section := range want {
		require.NotEmpty(t, sectionTests["vmbus-control.md "+section], "section %s has no test", section)
	}
	require.Len(t, sectionTests, len(want), "a section that does not exist")
	tests := map[string]map[string]bool{} // by package
	for section, list := range sectionTests {
		for _, where := range list {
			pkg, name, isTest := strings.Cut(where, ".Test")
			if !isTest {
				require.FileExists(t, filepath.Join(golden.Root(t), "testdata", "scenario", where+".txt"), section)
				continue
			}
			if tests[pkg] == nil {
				tests[pkg] = testsOf(t, pkg)
			}
			require.True(t, tests[pkg]["Test"+name], "%s: there is no %s", section, where)
		}
	}
}

// testsOf lists the test functions of a package.
func testsOf(t *testing.T, pkg string) map[string]bool {
	files, err := filepath.Glob(filepath.Join(golden.Root(t), filepath.FromSlash(pkg), "*_test.go"))
	require.NoError(t, err)
	found := map[string]bool{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				found[fn.Name.Name] = true
			}
		}
	}
	return found
}
