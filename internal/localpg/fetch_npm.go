package localpg

// npmPackage names npm's package of the server's programs for a platform.
func npmPackage(goos, goarch string) string {
	switch goarch {
	case "amd64":
		goarch = "x64"
	case "386":
		goarch = "ia32"
	case "ppc64le":
		goarch = "ppc64"
	}
	return "@embedded-postgres/" + goos + "-" + goarch
}
