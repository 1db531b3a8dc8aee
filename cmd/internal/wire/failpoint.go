package wire

// Failpoint stops a test binary, built with the tag failpoints, at the point
// that SLIPWAY_FAILPOINT names. In a shipped binary it does nothing.
func Failpoint(name string) { failpoint(name) }
