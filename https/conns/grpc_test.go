package conns

import "testing"

func TestIsGRPC(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/grpc": true, "application/grpc+proto": true, "application/grpc;charset=utf-8": true, "Application/gRPC": true,
		"application/grpc ; x=y": true, "application/grpc-web": false, "application/grpc-web+proto": false, "application/grpcx": false, "": false,
	} {
		if got := IsGRPC(contentType); got != want {
			t.Errorf("%q: %t", contentType, got)
		}
	}
}
