package world

import (
	"strings"

	"github.com/hvlab/hvlab/channel"
	"github.com/hvlab/hvlab/endpoint"
	"github.com/hvlab/hvlab/hvsock"
	"github.com/hvlab/hvlab/internal/fsm"
	"github.com/hvlab/hvlab/offers"
)

// tables are the transition tables that everything moves by.
func tables() []fsm.Counted {
	return append([]fsm.Counted{
		&endpoint.HostTransitions, &endpoint.GuestTransitions, &endpoint.PauseTransitions,
		&offers.HostTransitions, &offers.GuestTransitions,
		&channel.OpenTransitions, &channel.GuestTransitions, &channel.GPADLTransitions,
	}, hvsock.Tables()...)
}

// CountCells makes all worlds of this process count which cells of the transition
// tables they visit.
func CountCells() {
	for _, t := range tables() {
		t.Count()
	}
}

// Cells returns every cell of every transition table with its visits since
// CountCells, by all worlds of this process.
func Cells() (all []fsm.Cell) {
	for _, t := range tables() {
		all = append(all, t.Cells()...)
	}
	return all
}

// WhyUnvisited says why no world visits cell c, and what does; "" if one should.
func WhyUnvisited(c fsm.Cell) string {
	at := func(list ...string) bool {
		for _, name := range list {
			if strings.HasPrefix(c.State, name) || c.Event == name {
				return true
			}
		}
		return false
	}
	switch c.Table {
	case endpoint.HostTransitions.Name:
		if at("Connecting", "Disconnecting") {
			return atOnce
		}
	case endpoint.GuestTransitions.Name:
		if c.Event == "LinkFails" {
			return "a hypervisor that refuses for good: endpoint, TestGuestStates"
		}
	case channel.OpenTransitions.Name:
		switch {
		case at("OpeningReserved", "OpenReserved", "ClosingReserved", "GuestReserves"):
			return reserved
		case at("Opening", "Closing"):
			return atOnce
		}
	case channel.GuestTransitions.Name:
		if at("Unreserving", "Unreserves") {
			return reserved
		}
	case channel.GPADLTransitions.Name:
		if at("Offered", "TearingDown") {
			return atOnce
		}
	case "host socket":
		if c.Event == "CutsOff" {
			return "profiles of other systems: hvsock, TestProfiles"
		}
	case "guest socket":
		if c.Event == "OpenIgnored" {
			return "profiles of other systems: hvsock, TestProfiles"
		}
	}
	return ""
}

const (
	reserved = "no driver opens reserved channels: endpoint, scenarios and random worlds"
	atOnce   = "the running driver's devices answer at once: endpoint, random worlds"
)
