package script

import (
	"slices"

	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/vmbus"
)

// configure builds a world from the arguments of a "world" directive.
func configure(a *args) *World {
	profile := a.word("profile", "", "linux", "freebsd")
	guest := endpoint.GuestOptions{
		SkipTeardown: profile == "linux",
		Features:     vmbus.Features(num[uint32](a, "features", 0)),
		TargetVP:     num[uint32](a, "message-vp", 0),

		OwnEventFlags: a.has("own-flags"),
		InterruptPage: num[uint64](a, "interrupts", 0),
		MinVersion:    a.version("min"),

		RequirePrimary:     profile == "freebsd",
		ShortSocketRequest: a.has("short-dial"),
		ParentToChild:      num[uint64](a, "parent", 0),
		ChildToParent:      num[uint64](a, "child", 0),
	}
	if a.has("client") {
		guest.ClientID = a.guid("client", "")
	}
	if a.has("only") {
		guest.Interfaces = []vmbus.GUID{a.guid("only", "")}
	}
	if v := a.version("guest"); v != 0 {
		guest.Versions = []vmbus.Version{v}
	}
	if v := a.version("newest"); v != 0 {
		all := vmbus.Versions()
		guest.Versions = all[:slices.Index(all, v)+1]
		slices.Reverse(guest.Versions)
	}
	host := endpoint.HostOptions{
		MaxVersion:         a.version("max"),
		ReportSetupFailure: a.word("setup-failure", "", "openvmm") == "openvmm",
		Features:           vmbus.Features(num[uint32](a, "grant", 0)),
		ParentToChild:      num[uint64](a, "host-parent", 0),
		ChildToParent:      num[uint64](a, "host-child", 0),
		AbsoluteOrder:      a.has("absolute-order"),
		Dialect:            dialect(a),
		RedirectSINT:       num[uint8](a, "redirect-sint", 0),
	}
	w := NewWorldOf(host, guest)
	w.VPs = num[uint32](a, "vps", 0)
	w.Trusted, w.Raw, w.Mute = a.has("trusted"), a.has("raw"), a.has("mute")
	return w
}

// dialect reads the names of Dialect's fields.
func dialect(a *args) endpoint.Dialect {
	x := endpoint.Dialect{
		MessageConnection: num[uint32](a, "message-connection", 0),
		SignalBase:        num[uint32](a, "signal-base", 0),
		FailureStatus:     num[uint32](a, "failure-status", 0),
	}
	for name, set := range map[string]*bool{
		"no-version-echo": &x.NoVersionEcho, "pad-messages": &x.PadMessages, "monitor-id-zero": &x.MonitorIDZero,
		"silent-gpadl": &x.SilentGPADL, "global-gpadls": &x.GlobalGPADLs, "ignore-releases": &x.IgnoreReleases,
		"answer-every-unload": &x.AnswerEveryUnload, "message-vp-below-3.0": &x.MessageVPBelow30, "no-reserved": &x.NoReserved,
		"reject-unknown": &x.RejectUnknown, "reset-on-contact": &x.ResetOnContact, "answer-rescinded-opens": &x.AnswerRescindedOpens,
	} {
		*set = a.has(name)
	}
	return x
}
