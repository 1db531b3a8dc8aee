package oci

import "context"

// Workspace is where the Runner's commands see the workspace.
const Workspace = "/workspace"

// Runner runs one command in the sandbox of the job: the workspace at Workspace, writable, and the Mounts of Caches.
// All paths in command and env are those of the sandbox; env is complete, nothing may be added but what the sandbox itself
// needs. An error says how the command ended; what it printed goes elsewhere.
type Runner interface {
	Run(ctx context.Context, command, env []string, network bool) error
}
