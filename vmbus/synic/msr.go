package synic

import "github.com/hvlab/hvlab/vmbus/guestmem"

// WriteMSR implements GuestPort. Source: vmbus-control.md 9.2.
func (p *Partition) WriteMSR(vp uint32, msr uint32, v uint64) error {
	proc, err := p.processor(vp)
	if err != nil {
		return err
	}
	refused := func(reason string) error {
		return &MSRError{VP: vp, MSR: msr, Write: true, Value: v, Reason: reason}
	}
	switch {
	case msr == MSRGuestOSID || msr == MSRHypercall:
		if !p.writeShared(msr, v) {
			return refused("the hypercall page is locked")
		}
		return nil
	case msr == MSRVPAssistPage:
		proc.set(func() { proc.assist = v })
		return nil
	case msr == MSRSCONTROL:
		proc.set(func() { proc.scontrol = v })
	case msr == MSRSIEFP:
		page := p.overlay(v)
		proc.set(func() {
			if moved(proc.siefp, v) {
				zero(page)
			}
			proc.siefp, proc.events = v, page
		})
	case msr == MSRSIMP:
		page := p.overlay(v)
		proc.set(func() {
			if moved(proc.simp, v) {
				zero(page)
			}
			proc.simp, proc.messages = v, page
		})
	case msr == MSREOM: // the value does not matter
	case msr >= MSRSINT0 && msr < MSRSINT0+SINTs:
		if v&sintMasked == 0 && v&sintVector < minVector {
			return refused("the vector is one of the CPU's own")
		}
		proc.set(func() { proc.sint[msr-MSRSINT0] = v })
	case isReadOnly(msr):
		return refused("the register is read-only")
	default:
		return refused("no such register")
	}
	p.rescan(vp)
	return nil
}

// ReadMSR implements GuestPort. Source: vmbus-control.md 9.2.
func (p *Partition) ReadMSR(vp, msr uint32) (uint64, error) {
	proc, err := p.processor(vp)
	if err != nil {
		return 0, err
	}
	switch {
	case msr == MSRVPIndex:
		return uint64(vp), nil
	case msr == MSRTimeRefCount:
		return p.referenceTime(), nil
	case msr == MSRTSCFrequency && p.tscHz != 0:
		return p.tscHz, nil
	case msr == MSRAPICFrequency && p.apicHz != 0:
		return p.apicHz, nil
	case msr == MSRSVERSION:
		return 1, nil
	case msr == MSREOM: // write-only; reads as zero
		return 0, nil
	case msr == MSRGuestOSID || msr == MSRHypercall:
		p.mu.Lock()
		defer p.mu.Unlock()
		if msr == MSRGuestOSID {
			return p.guestOSID, nil
		}
		return p.hypercall, nil
	}
	proc.mu.RLock()
	defer proc.mu.RUnlock()
	switch {
	case msr == MSRVPAssistPage:
		return proc.assist, nil
	case msr == MSRSCONTROL:
		return proc.scontrol, nil
	case msr == MSRSIEFP:
		return proc.siefp, nil
	case msr == MSRSIMP:
		return proc.simp, nil
	case msr >= MSRSINT0 && msr < MSRSINT0+SINTs:
		return proc.sint[msr-MSRSINT0], nil
	}
	return 0, &MSRError{VP: vp, MSR: msr, Reason: "no such register"}
}

func isReadOnly(msr uint32) bool {
	switch msr {
	case MSRVPIndex, MSRTimeRefCount, MSRTSCFrequency, MSRAPICFrequency, MSRSVERSION:
		return true
	}
	return false
}

// writeShared writes an MSR all processors share, and reports whether it was
// allowed. The hypercall page itself is the monitor's business.
func (p *Partition) writeShared(msr uint32, v uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case msr == MSRGuestOSID:
		p.guestOSID = v
		if v == 0 { // a guest without identity has no hypercalls
			p.hypercall &^= msrEnable
		}
	case p.hypercall&hypercallLocked != 0:
		return false
	case p.guestOSID == 0:
		p.hypercall = v &^ msrEnable
	default:
		p.hypercall = v
	}
	return true
}

func (vp *processor) set(change func()) {
	vp.mu.Lock()
	defer vp.mu.Unlock()
	change()
}

// overlay finds the page that a SIEFP or SIMP value names: nil if it is disabled
// or there is no such page, which a guest is free to name.
func (p *Partition) overlay(v uint64) *guestmem.Page {
	if v&msrEnable == 0 {
		return nil
	}
	page, err := p.mem.Page(v >> msrPFNShift)
	if err != nil {
		return nil
	}
	return page
}

// moved reports whether a write to SIEFP or SIMP puts the overlay in a new place.
func moved(old, v uint64) bool {
	return v&msrEnable != 0 && (old&msrEnable == 0 || old>>msrPFNShift != v>>msrPFNShift)
}

// zero clears a page that has become an overlay: a fresh one is empty. It stores
// words, atomically, since another processor may be using the same page, and
// only where needed, since guests mostly give a page that is zero already.
func zero(page *guestmem.Page) {
	if page == nil {
		return
	}
	for off := 0; off < guestmem.PageSize; off += 8 {
		if page.Load64(off) != 0 {
			page.Store64(off, 0)
		}
	}
}
