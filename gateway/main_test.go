package gateway_test

import (
	"testing"

	"lodge/e2e/sandbox"
)

func TestMain(m *testing.M) { sandbox.Main(m) }
