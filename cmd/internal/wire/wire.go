// Package wire turns options into running loops. It is the one place where the
// ports that loops declare meet the adapters that fill them.
package wire

// Version of the build; set by the linker.
var Version = "dev"

// RenderChild is the hidden subcommand with which a binary starts itself as a
// child that renders; every binary that renders has it.
const RenderChild = "render-child"
