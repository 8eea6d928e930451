package gateway_test

import (
	"testing"

	"lodge/gateway/sandboxtest"
)

func TestMain(m *testing.M) { sandboxtest.Main(m) }
