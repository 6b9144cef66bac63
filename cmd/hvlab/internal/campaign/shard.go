package campaign

import (
	"fmt"
	"strconv"
	"strings"
)

// A Shard is the part of the seeds that one machine takes: those whose place in
// the range, counted from 0, leaves Index when divided by Count.
type Shard struct{ Index, Count int }

// ParseShard reads "2/5". An empty text is the whole.
func ParseShard(text string) (Shard, error) {
	if text == "" {
		return Shard{0, 1}, nil
	}
	left, right, ok := strings.Cut(text, "/")
	index, err1 := strconv.Atoi(left)
	count, err2 := strconv.Atoi(right)
	if !ok || err1 != nil || err2 != nil || count < 1 || index < 0 || index >= count {
		return Shard{}, fmt.Errorf("-shard %q: want I/N with I from 0 to N-1, such as 0/4", text)
	}
	return Shard{index, count}, nil
}

// size is how many of n seeds the shard has.
func (s Shard) size(n uint64) uint64 {
	if n <= uint64(s.Index) {
		return 0
	}
	return (n-uint64(s.Index)-1)/uint64(s.Count) + 1
}

// ParseSeeds reads "1-1000", or one seed.
func ParseSeeds(text string) (first, last uint64, err error) {
	left, right, isRange := strings.Cut(text, "-")
	if !isRange {
		right = left
	}
	first, err1 := strconv.ParseUint(left, 10, 64)
	last, err2 := strconv.ParseUint(right, 10, 64)
	switch {
	case err1 != nil || err2 != nil:
		return 0, 0, fmt.Errorf("-seeds %q: want FIRST-LAST, such as 1-1000", text)
	case first > last:
		return 0, 0, fmt.Errorf("-seeds %q: the first seed is after the last", text)
	case last-first >= maxSeeds:
		return 0, 0, fmt.Errorf("-seeds %q: more than %d seeds", text, uint64(maxSeeds))
	}
	return first, last, nil
}

// maxSeeds keeps the arithmetic of shards far from overflow.
const maxSeeds = 1 << 48
