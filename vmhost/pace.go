package vmhost

import "time"

// pace spaces out retries: at once, then after 1 s, 2 s, 4 s, up to maxPace. It starts over after
// paceReset without a try.
type pace struct {
	tries int
	last  time.Time
}

const (
	maxPace   = 2 * time.Minute
	paceReset = 10 * time.Minute
)

// spaced calls try, unless it is too early. again is the time until the next try is due.
func (p *pace) spaced(try func() error) (again time.Duration, err error) {
	now := time.Now()
	if now.Sub(p.last) > paceReset {
		p.tries = 0
	}
	if wait := p.wait(now); wait > 0 {
		return wait, nil
	}
	p.tries, p.last = p.tries+1, now
	err = try()
	return p.wait(time.Now()), err
}

func (p *pace) wait(now time.Time) time.Duration {
	if p.tries == 0 {
		return 0
	}
	return max(0, p.next().Sub(now))
}

// next returns when the next try is due; before the first try it has no meaning.
func (p *pace) next() time.Time {
	return p.last.Add(min(time.Second<<min(max(p.tries-1, 0), 10), maxPace))
}
