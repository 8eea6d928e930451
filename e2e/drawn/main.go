// Command drawn prints random values as Go programs draw them, for the suite: two guests must not
// print the same.
package main

import (
	"crypto/rand"
	"fmt"
	weak "math/rand/v2"
	"os"
)

func main() {
	if _, err := fmt.Printf("go-crypto %s\ngo-math %d\n", rand.Text(), weak.Uint64()); err != nil { //nolint:gosec // it must differ as well
		os.Exit(1)
	}
}
