package offers

import "github.com/hvlab/hvlab/vmbus"

// MaxOffers is the number of channel ids of one connection, in channels: event
// flags 1..2047 of one SINT, flag 0 being reserved (vmbus-control.md 1.4).
const MaxOffers = vmbus.MaxChannels
