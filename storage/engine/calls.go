package engine

import (
	"strconv"
	"sync"
)

// callHeader has the number of a call on its way to versitygw.
const callHeader = "X-Lodge-Call"

// calls are the requests that Do has sent and not ended. A client that leaves ends its request to
// versitygw, but not versitygw's work on it, which Do waits for: it may still change files.
type calls struct {
	mu   sync.Mutex
	last int
	open map[string]*sync.WaitGroup // by number; counts versitygw's handlers: the transport may repeat a request
}

// add begins a call. end refuses handlers that have not begun, and waits for the others.
func (c *calls) add() (number string, end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	number, handlers := strconv.Itoa(c.last), new(sync.WaitGroup)
	c.open[number] = handlers
	return number, func() {
		c.mu.Lock()
		delete(c.open, number)
		c.mu.Unlock()
		handlers.Wait()
	}
}

// handle begins a handler of a call; false for one that has ended.
func (c *calls) handle(number string) (done func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	handlers, ok := c.open[number]
	if !ok {
		return nil, false
	}
	handlers.Add(1)
	return handlers.Done, true
}
