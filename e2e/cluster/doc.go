// Package cluster starts real Kubernetes clusters for tests and the demo, from nothing but a Go toolchain.
//
// A cluster is a set of processes of one role binary (module e2e/cluster/roles): etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler, and then either a real node (kubelet, kube-proxy, containerd and runc in
// namespaces of their own), simulated nodes (kwok), or none. What has to be built is built once into the user's cache
// directory; nothing is installed on the host.
//
// It promises that clusters side by side share nothing (ports are free ones, etcd listens on a unix socket, cgroup
// roots are per cluster), that every process dies with the process that called [Start], even when that is killed with
// SIGKILL, and that [Cluster.Stop] leaves no process, mount, network namespace or cgroup behind.
//
// It refuses to guess: what the machine lacks is named with the way to get it. Linux only. Real nodes were tried with
// cgroup v1; on a machine with cgroup v2 the settings for v2 are chosen, but that could not be tried yet.
package cluster
