package tidy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A specRow is a row of a table of hvsock.md, and where it is tested: tests as
// "package.TestName", with ": text" behind it if one entry of the test's table is
// meant, or behaviours of the conformance suite as "behaviour Name". A row that no
// test can name says why in none.
type specRow struct {
	row   string
	tests string // separated by "; "
	none  string
}

// specRows are the rows of the sections of hvsock.md that promise behaviour.
var specRows = map[string][]specRow{
	"4 who can reach whom": {
		{row: "host process, VM's id", tests: "sim.TestReachability; sim.TestReachabilityOfBinds"},
		{row: "host process, LOOPBACK", tests: "sim.TestReachability; sim.TestReachabilityOfBinds"},
		{row: "host process, PARENT", tests: "sim.TestReachability: a physical host has no parent"},
		{row: "VM process, PARENT", tests: "sim.TestReachability; sim.TestReachabilityOfBinds; sim.TestSpecificBindWins"},
		{row: "VM process, LOOPBACK", tests: "sim.TestReachability; sim.TestReachabilityOfBinds"},
		{row: "silo on a physical host, PARENT or SILOHOST", tests: "sim.TestReachability; sim.TestReachabilityOfBinds"},
		{row: "container in a utility VM, SILOHOST", tests: "sim.TestReachability; sim.TestReachabilityOfBinds"},
		{row: "container in a utility VM, PARENT", tests: "sim.TestReachability: parent: the current header; sim.TestReachabilityOlderParent; sim.TestContainerPassthruOption"},
		{row: "VM process, another VM's id", tests: "sim.TestReachability: another VM's id reaches nothing"},
		{row: "listening on PARENT", tests: "sim.TestReachabilityOfBinds; sim.TestReachabilityOlderParent"},
		{row: "one listener per (VmId, ServiceId), specific first", tests: "hvsock.TestListenersLookup; sim.TestReachabilityOfBinds"},
	},
	"8 blocking, backlog, timeouts": {
		{row: "Linux connect timeout", tests: "sim.TestProfileRefusalAndTimeout; sim.TestConnectTimeoutOption; hvsock.TestVSockOptions"},
		{row: "non-blocking connect", tests: "hvsock.TestBeginDial; hvsock.TestManualWorld"},
		{row: "interrupted connect", tests: "hvsock.TestInterruptedAtEveryStep; hvsock.TestContextAgainstSuccess"},
		{row: "Windows connect timeout", tests: "sim.TestConnectTimeoutOption; hvsock.TestOptionRanges"},
		{row: "backlog", tests: "sim.TestProfileBacklog; hvsock.TestBacklogOfAMachine; hvsock.TestBacklog; behaviour BacklogHolds"},
		{row: "accept", tests: "hvsock.TestAcceptDeadline; behaviour AcceptDeadline; behaviour AcceptDeadlinePast"},
		{row: "guest close timer", tests: "hvsock.TestHostNeverRescinds; sim.TestProfileClose"},
		{row: "host wait for guest open", tests: "hvsock.TestGuestNeverOpens; sim.TestDialTimeouts"},
		{row: "keepalive", tests: "behaviour Silence"},
	},
	"9 socket options": {
		{row: "HVSOCKET_CONNECT_TIMEOUT", tests: "hvsock.TestOptionTable: HVSOCKET_CONNECT_TIMEOUT; sim.TestConnectTimeoutOption"},
		{row: "HVSOCKET_CONTAINER_PASSTHRU", tests: "hvsock.TestOptionTable: HVSOCKET_CONTAINER_PASSTHRU; sim.TestContainerPassthruOption"},
		{row: "HVSOCKET_CONNECTED_SUSPEND", tests: "hvsock.TestOptionTable: HVSOCKET_CONNECTED_SUSPEND; sim.TestConnectedSuspendOption"},
		{row: "HVSOCKET_HIGH_VTL", tests: "hvsock.TestOptionTable: HVSOCKET_HIGH_VTL; sim.TestHighVTLOption"},
		{row: "HVSOCKET_ADDRESS_FLAG_PASSTHRU", tests: "hvsock.TestAddressInfo"},
		{row: "SO_VM_SOCKETS_BUFFER_SIZE / MIN / MAX", tests: "hvsock.TestVSockOptions"},
		{row: "SO_VM_SOCKETS_PEER_HOST_VM_ID, TRUSTED, NONBLOCK_TXRX", tests: "hvsock.TestOptionRanges: VSockTrusted"},
		{row: "SO_VM_SOCKETS_CONNECT_TIMEOUT", tests: "hvsock.TestVSockOptions; sim.TestConnectTimeoutOption"},
		{row: "SO_SNDBUF, SO_RCVBUF", tests: "sim.TestBufferOptions; hvsock.TestRingPagesFor"},
	},
	"10 errors": {
		{row: "no listener on the other side, guest connects", tests: "sim.TestProfileRefusalAndTimeout; behaviour NoListener"},
		{row: "no listener in a Linux guest, host connects", tests: "sim.TestDialTimeouts; hvsock.TestGuestNeverOpens"},
		{row: "connect timer expired", tests: "sim.TestDialTimeouts; sim.TestConnectTimeoutOption"},
		{row: "connect to a CID other than 2", tests: "sim.TestProfileAddresses; sim.TestErrors"},
		{row: "transport absent", tests: "hvsock.TestBeginDial: there is no bus"},
		{row: "hypervisor socket service down / VM rebooting", tests: "sim.TestHibernate: it may come back (10); sim.TestCrash"},
		{row: "not registered / not permitted", tests: "sim.TestRegisteredServices; sim.TestServicePermissions; sim.TestProfilePrivilegedPorts"},
		{row: "port or service already bound", tests: "behaviour AddressInUse; sim.TestProfileBindConflict"},
		{row: "bind to a foreign CID; no auto port", tests: "sim.TestReachabilityOfBinds; hvsock.TestListenersAutomaticPort"},
		{row: "bind twice; listen unbound; bad address", tests: "sim.TestProfileAddresses; hvsock.TestParseAddrRefuses"},
		{row: "connect when connected", none: "net.Conn has no connect"},
		{row: "send/recv before connect", none: "a net.Conn is connected"},
		{row: "send after own SHUT_WR", tests: "behaviour WriteAfterCloseWrite"},
		{row: "send after rescind", tests: "sim.TestProfileCutOff; hvsock.TestDetachUnblocks"},
		{row: "recv after FIN or rescind", tests: "behaviour EOFLatch; sim.TestProfileCutOff"},
		{row: "recv after own SHUT_RD", tests: "behaviour CloseRead"},
		{row: "would block", tests: "hvsock.TestManualWorld"},
		{row: "send with a destination", none: "net.Conn has no sendto"},
		{row: "MSG_OOB, MSG_PEEK, MSG_ZEROCOPY", none: "net.Conn has no flags"},
		{row: "SOCK_DGRAM socket()", tests: "hvsock.TestSocketTypes; sim.TestProfileAddresses"},
		{row: "SOCK_SEQPACKET connect", tests: "hvsock.TestSocketTypes"},
		{row: "malformed packet", tests: "hvsock.TestMalformedPipePackets; hvsock.TestBrokenRing"},
	},
	"11 pause, save, migration, hibernation, crash": {
		{row: "VM pause", tests: "sim.TestPause; sim.TestPauseKeepingConnections; sim.TestConnectedSuspendOption; sim.TestCloseWhilePaused"},
		{row: "save/restore, live migration", tests: "sim.TestSaveAndRestore; sim.TestMigrate; sim.TestMigrateContainers; sim.TestSaveAtAnyMoment"},
		{row: "guest hibernation", tests: "sim.TestHibernate"},
		{row: "guest crash, reset, VMBus unload", tests: "sim.TestCrash; sim.TestGuestCloseEndsConnections; hvsock.TestHostSocketTable: VM reset"},
		{row: "encrypted VMs", none: "no memory is encrypted here; that an isolated guest takes the offers is scenario GC-17-isolated-guest"},
	},
	"12 guest socket, by event": {
		{row: "every state and every event of our machine", tests: "hvsock.TestMachineTables"},
		{row: "connect() in C", tests: "hvsock.TestGuestSocketTable: S connecting"},
		{row: "connect() in any other state", none: "a Dial makes a socket of its own"},
		{row: "listen() in C", tests: "hvsock.TestGuestSocketTable: L listening; sim.TestProfileAddresses"},
		{row: "listen() in L", tests: "hvsock.TestSetBacklog"},
		{row: "listen() in any other state", none: "a Listen makes a socket of its own"},
		{row: "offer, byte64=0", tests: "hvsock.TestGuestSocketTable: offer, byte 64 = 0, instance = mine"},
		{row: "offer, byte64=1", tests: "hvsock.TestGuestSocketTable: offer, byte 64 = 1, interface = mine; hvsock.TestBacklogOfAMachine"},
		{row: "message 23", tests: "hvsock.TestGuestSocketTable: message 23; sim.TestProfileRefusalAndTimeout"},
		{row: "connect timer", tests: "hvsock.TestGuestSocketTable: 2 s"},
		{row: "signal during connect", tests: "hvsock.TestInterruptedAtEveryStep; hvsock.TestContextAgainstSuccess"},
		{row: "accept()", tests: "hvsock.TestAcceptOrder; behaviour AcceptOrder"},
		{row: "ring data", tests: "hvsock.TestGuestSocketTable: data; hvsock.TestNoLostWakeup; hvsock.TestLateData"},
		{row: "ring space", tests: "hvsock.TestNoLostWakeup; hvsock.TestRaces: writer blocked, host freed space earlier"},
		{row: "reader reaches FIN", tests: "hvsock.TestGuestSocketTable: FIN; behaviour EOFLatch"},
		{row: "data after FIN", tests: "hvsock.TestRaces: data arriving after FIN"},
		{row: "bad packet", tests: "hvsock.TestMalformedPipePackets; hvsock.TestBrokenRing"},
		{row: "send() and recv() in E, G and Z", tests: "hvsock.TestGuestSocketTable: G rescinded; hvsock.TestStateErrors"},
		{row: "send() and recv() in C, L and S", none: "there is no net.Conn yet"},
		{row: "shutdown RD", tests: "hvsock.TestStateErrors; hvsock.TestDetachThenCloseRead; behaviour CloseRead"},
		{row: "shutdown WR / RDWR", tests: "hvsock.TestStateErrors; behaviour WriteAfterCloseWrite; behaviour ShutdownBoth"},
		{row: "rescind", tests: "hvsock.TestGuestSocketTable: data, rescind; hvsock.TestRaces: two rescinds at once"},
		{row: "close()", tests: "hvsock.TestGuestSocketTable: Z released; hvsock.TestListenerCloseWithChildren"},
		{row: "8 s timer", tests: "hvsock.TestGuestSocketTable: 8 s; hvsock.TestHostNeverRescinds"},
		{row: "suspend", tests: "sim.TestHibernate"},
		{row: "channel: released once, after everything else", tests: "hvsock.TestGuestSocketTable: closes, releases; endpoint.TestTables"},
	},
	"13 host endpoint, by state": {
		{row: "every state and every event of our machine", tests: "hvsock.TestMachineTables"},
		{row: "REQUESTED", tests: "hvsock.TestHostSocketTable: REQUESTED; sim.TestRequestAccepted"},
		{row: "OFFERED (guest connect)", tests: "hvsock.TestHostSocketTable: OFFERED (guest connect); hvsock.TestGuestNeverOpens"},
		{row: "OFFERED (host connect)", tests: "hvsock.TestHostSocketTable: OFFERED (host connect); hvsock.TestGuestNeverOpens"},
		{row: "OPENING, which is no state here: the answer is given at once", tests: "hvsock.TestRaces: rescind callback installed before open fails; hvsock.TestHostSocketTable: guest opens"},
		{row: "OPEN", tests: "hvsock.TestHostSocketTable: OPEN"},
		{row: "FIN_SENT", tests: "hvsock.TestHostSocketTable: FIN_SENT"},
		{row: "PEER_FIN", tests: "hvsock.TestHostSocketTable: PEER_FIN"},
		{row: "REVOKED", tests: "hvsock.TestHostSocketTable: REVOKED"},
		{row: "host rule: message 23 exactly once", tests: "hvsock.TestRaces: message 23 vs offer; sim.TestRequestThatFails"},
		{row: "host rule: no reuse of a relid before its release", tests: "offers.TestIDReuse"},
		{row: "host rule: hands off the rings after CLOSE_CHANNEL", tests: "hvsock.TestDetachAfterClose"},
		{row: "host rule: limit outstanding requests", tests: "hvsock.TestSixteenOutstandingRequests"},
	},
	"14 races": {
		{row: "rescind vs accept", tests: "hvsock.TestRaces: rescind vs accept"},
		{row: "rescind callback installed before open fails", tests: "hvsock.TestRaces: rescind callback installed before open fails"},
		{row: "rescind vs offer processing", tests: "hvsock.TestRaces: rescind vs offer processing"},
		{row: "rescind vs channel callback", tests: "hvsock.TestRaces: rescind vs channel callback"},
		{row: "two rescinds at once", tests: "hvsock.TestRaces: two rescinds at once"},
		{row: "close vs host reading", tests: "hvsock.TestRaces: close vs host reading; sim.TestWriteThenClose"},
		{row: "close timer vs rescind", tests: "hvsock.TestRaces: close timer vs rescind"},
		{row: "double removal from tables", tests: "hvsock.TestRaces: double removal from tables"},
		{row: "double close / close after shutdown", tests: "hvsock.TestRaces: double close or close after shutdown; behaviour CloseAfterCloseWrite"},
		{row: "writer blocked, host freed space earlier", tests: "hvsock.TestRaces: writer blocked, host freed space earlier"},
		{row: "FIN behind data in one batch", tests: "hvsock.TestRaces: FIN behind data in one batch; behaviour FINBehindData"},
		{row: "data arriving after FIN", tests: "hvsock.TestRaces: data arriving after FIN"},
		{row: "offer while the listener closes", tests: "hvsock.TestRaces: offer while the listener closes"},
		{row: "offer after connect timed out", tests: "hvsock.TestRaces: offer after connect timed out"},
		{row: "second offer with the same pair", tests: "hvsock.TestRaces: second offer with the same pair; hvsock.TestIdenticalEndpointIDs"},
		{row: "port reuse after a timeout", tests: "hvsock.TestRaces: port reuse after a timeout"},
		{row: "connect success vs timeout/signal", tests: "hvsock.TestRaces: connect success vs timeout or signal; hvsock.TestContextAgainstSuccess"},
		{row: "message 23 vs offer", tests: "hvsock.TestRaces: message 23 vs offer"},
		{row: "poller before first data", tests: "hvsock.TestRaces: poller before first data"},
		{row: "close during blocked read/write in Go", tests: "hvsock.TestRaces: close during blocked read and write in Go; behaviour CloseUnblocks; hvsock.TestCloseUnblocks"},
		{row: "listener up after VM start", tests: "hvsock.TestRaces: listener up after VM start; behaviour DialThenListen"},
	},
	"15 differences": {
		{row: "family / address", tests: "sim.TestProfileAddresses; hvsock.TestSockaddrHVS"},
		{row: "message 23", tests: "sim.TestProfileRefusalAndTimeout; sim.TestRefusalBelow41"},
		{row: "connect timeout", tests: "sim.TestProfileRefusalAndTimeout"},
		{row: "half-close", tests: "sim.TestProfileHalfClose"},
		{row: "FIN mark", tests: "sim.TestProfileHalfClose"},
		{row: "read after disconnect", tests: "sim.TestProfileCutOff"},
		{row: "close", tests: "sim.TestProfileClose"},
		{row: "writable reserve", tests: "channel.TestPipeWritable"},
		{row: "chunk", tests: "sim.TestProfileChunk"},
		{row: "remote port of an accepted socket", tests: "sim.TestProfileRemotePort"},
		{row: "pipe type check", tests: "hvsock.TestMalformedPipePackets"},
		{row: "ring reading", tests: "channel.TestPipeMask"},
		{row: "bind conflict", tests: "sim.TestProfileBindConflict"},
	},
	"16 mapping to Go": {
		{row: "Dial", tests: "behaviour DialDeadline; behaviour DialCancelled; behaviour NoListener; sim.TestErrors"},
		{row: "Dial cancelled, late offer", tests: "hvsock.TestRaces: offer after connect timed out; behaviour DialCancelledMidway"},
		{row: "Listen", tests: "behaviour AddressInUse; behaviour AutomaticPort; sim.TestErrors"},
		{row: "Accept", tests: "behaviour AcceptClosed; behaviour AcceptDeadline; behaviour AcceptEnded"},
		{row: "Listener.Close", tests: "behaviour ListenerCloseTwice; behaviour ListenerCloseSpares; behaviour ListenerCloseEndsQueued"},
		{row: "Read", tests: "behaviour ReadReturnsEarly; behaviour EOFLatch; behaviour EmptyRead; sim.TestProfileCutOff"},
		{row: "Write", tests: "behaviour WriteSizes; behaviour EmptyWrite; behaviour WriteAfterCloseWrite; behaviour DeadlinePartialWrite"},
		{row: "CloseWrite", tests: "behaviour HalfClose; behaviour WriteAfterCloseWrite; behaviour FINNeedsNoSpace; behaviour CloseWriteUnblocks"},
		{row: "CloseRead", tests: "behaviour CloseRead; behaviour CloseReadDiscards; behaviour CloseReadUnblocks"},
		{row: "Close", tests: "behaviour CloseDelivers; behaviour CloseUnblocks; behaviour AfterClose"},
		{row: "SetDeadline and friends", tests: "behaviour DeadlinePast; behaviour DeadlineBlocked; behaviour DeadlineRevives"},
		{row: "LocalAddr/RemoteAddr", tests: "behaviour Addresses; behaviour OwnEndpoints"},
		{row: "concurrency", tests: "behaviour WritesStayTogether; behaviour ConcurrentReads; behaviour ConcurrentClose"},
		{row: "errors.Is checks", tests: "hvsock.TestOpErrorShape; sim.TestErrors"},
		{row: "net.ErrClosed vs EOF", tests: "behaviour AfterClose; behaviour EOFLatch"},
		{row: "io.Copy", tests: "hvsock.TestCopyWays; hvsock.TestWriteToEnds; hvsock.TestReadFromEnds; hvsock.TestConnToConn; hvsock.TestConnModel; sim.TestWriteThenClose"},
	},
}

// Every row of those tables has a test that exists, and the entry of its table,
// too; or a reason why there is none.
func TestSpecificationRowsAreTested(t *testing.T) {
	tests := map[string]string{} // by "package.TestName", the text of the package's tests
	behaviours := map[string]bool{}
	name := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	behaviour := regexp.MustCompile(`(?m)^\t\{"(\w+)", "(?:hvsock|faults)\.md`)
	for _, s := range sources(t) {
		source, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(s.name)))
		require.NoError(t, err)
		if s.folder == "hvsock/hvsocktest" {
			for _, m := range behaviour.FindAllStringSubmatch(string(source), -1) {
				behaviours[m[1]] = true
			}
		}
		if s.test {
			for _, m := range name.FindAllStringSubmatch(string(source), -1) {
				tests[s.folder+"."+m[1]] = string(source)
			}
		}
	}
	require.GreaterOrEqual(t, len(behaviours), 60)
	for section, rows := range specRows {
		for _, r := range rows {
			require.True(t, (r.tests == "") != (r.none == ""), "%s: %s: tests, or why there are none", section, r.row)
			for _, test := range strings.Split(r.tests, "; ") {
				if r.none != "" {
					continue
				}
				if b, ok := strings.CutPrefix(test, "behaviour "); ok {
					require.True(t, behaviours[b], "%s: %s: there is no behaviour %s", section, r.row, b)
					continue
				}
				function, entry, _ := strings.Cut(test, ": ")
				text, exists := tests[function]
				require.True(t, exists, "%s: %s: there is no %s", section, r.row, function)
				require.Contains(t, text, entry, "%s: %s: %s has no such entry", section, r.row, function)
			}
		}
	}
}

// The table in the documentation of hvsock names the test behind each cell of
// hv_sock; they exist.
func TestDocumentationNamesTests(t *testing.T) {
	exist := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, s := range sources(t) {
		if !s.test || s.folder != "hvsock" && s.folder != "sim" {
			continue
		}
		source, err := os.ReadFile(filepath.Join(root(t), filepath.FromSlash(s.name)))
		require.NoError(t, err)
		for _, m := range function.FindAllStringSubmatch(string(source), -1) {
			exist[m[1]] = true
		}
	}
	doc, err := os.ReadFile(filepath.Join(root(t), "hvsock", "doc.go"))
	require.NoError(t, err)
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(doc), -1)
	require.GreaterOrEqual(t, len(named), 10)
	for _, name := range named {
		require.True(t, exist[name], "hvsock/doc.go names %s, which does not exist", name)
	}
}
