package image_test

import (
	"flag"
"os"
	"testing"
	"time"

	"lodge/gateway"
	"lodge/vmhost/image"
)

// TestBuildReal builds a real image from the mirror, as root, when it is told where. It prints how long each phase took.
func TestBuildReal(t *testing.T) {
	if *buildDir == "" {
		t.Skip("needs root and a Debian mirror: -image.build=DIR [-image.name=debian-12]")
	}
	phase, last := "", time.Duration(0)
	err := image.Build(t.Context(), image.Recipe{Name: *buildName, Dir: *buildDir, Progress: func(p gateway.Progress) {
		t.Logf("%8.1fs %-10s %d/%d %s", p.Elapsed.Seconds(), p.Phase, p.Done, p.Total, p.Text)
		if p.Phase != phase {
			phase, last = p.Phase, p.Elapsed
		}
	}})
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	img, err := image.Open(*buildDir, *buildName)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Logf("%+v", img)
	begun := time.Now()
	disk := os.Getenv("DISKOUT"); os.Remove(disk)
	if err := img.NewDisk(t.Context(), disk, 10); err != nil {
		t.Fatalf("NewDisk: %v", err)
	}
	t.Logf("last phase at %v, disk made in %v", last, time.Since(begun))
}

//nolint:gochecknoglobals // flags
var (
	buildDir  = flag.String("image.build", "", "build a real image in this directory")
	buildName = flag.String("image.name", image.Default, "which image")
)
