// Package oci makes images of Go programs, pushes them, and unpacks the images that stages run in.
//
// It promises that the same commit, toolchain, base and build of Slipway give the same digest: from any folder, HOME, user
// and cache, with any clock. (The build of Slipway counts because its compressor does.) Nothing of a repository is ever
// executed here: the toolchain runs through a Runner, in the sandbox of the job, first with network and without executing
// anything of the repository (downloading modules), then without network. What is read back from the workspace, which
// steps of the repository have written to, is read through os.Root and taken for hostile.
//
// It refuses what it could not keep that promise for: cgo, base images with layers that may not be copied, and platforms
// other than linux. A go.work is left out of account.
package oci
