package conns

// handlerStack is as much of a stack as a request to a VM takes, with what authorizes it.
const handlerStack = 12 << 10

// growStack makes the goroutine's stack large enough for a handler, at once and while there are few
// frames to copy: net/http starts a goroutine with a small stack for each request of HTTP/2, and a
// handshake has one of its own. The runtime makes room for the whole frame of a function that is
// called, so the array is not used; used is 0.
//
//go:noinline
func growStack(used int) byte {
	if used == 0 {
		return 0
	}
	var room [handlerStack]byte
	return room[used%handlerStack]
}
