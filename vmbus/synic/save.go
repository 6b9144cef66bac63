package synic

// Registers is what a Partition knows of its guest: the synthetic registers. The
// pages they name are the guest's memory, the ports are the host's.
type Registers struct {
	GuestOSID, Hypercall uint64
	VPs                  []VPRegisters
}

// VPRegisters is the registers of one virtual processor.
type VPRegisters struct {
	SCONTROL, SIEFP, SIMP, Assist uint64
	SINT                          [SINTs]uint64
}

// Save returns the registers.
func (p *Partition) Save() Registers {
	p.mu.Lock()
	r := Registers{GuestOSID: p.guestOSID, Hypercall: p.hypercall}
	p.mu.Unlock()
	for i := range p.vps {
		vp := &p.vps[i]
		vp.mu.RLock()
		r.VPs = append(r.VPs, VPRegisters{vp.scontrol, vp.siefp, vp.simp, vp.assist, vp.sint})
		vp.mu.RUnlock()
	}
	return r
}

// Restore sets all registers at once, over memory that was restored before: unlike
// a guest that writes its registers, it leaves the message and event-flag pages as
// they are, with what is in them. Errors: *RangeError (ErrState) for another number
// of virtual processors, *MSRError for a vector that no guest can have set.
func (p *Partition) Restore(r Registers) error {
	if len(r.VPs) != len(p.vps) {
		return &RangeError{"number of saved VPs", int64(len(r.VPs)), int64(len(p.vps)) + 1}
	}
	for i, vp := range r.VPs {
		for s, v := range vp.SINT {
			if v&sintMasked == 0 && v&sintVector < minVector {
				return &MSRError{VP: uint32(i), MSR: MSRSINT0 + uint32(s), Write: true, Value: v, Reason: "the vector is one of the CPU's own"}
			}
		}
	}
	p.mu.Lock()
	p.guestOSID, p.hypercall = r.GuestOSID, r.Hypercall
	p.mu.Unlock()
	for i, saved := range r.VPs {
		vp := &p.vps[i]
		vp.set(func() {
			vp.scontrol, vp.siefp, vp.simp, vp.assist, vp.sint = saved.SCONTROL, saved.SIEFP, saved.SIMP, saved.Assist, saved.SINT
			vp.events, vp.messages = p.overlay(saved.SIEFP), p.overlay(saved.SIMP)
		})
		p.rescan(uint32(i))
	}
	return nil
}
