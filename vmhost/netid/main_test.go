package netid

import (
	"testing"

	"lodge/e2e/sandbox"
)

func TestMain(m *testing.M) { sandbox.Main(m) }
