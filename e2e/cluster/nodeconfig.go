package cluster

// containerdConfig keeps everything below the cluster's folder.
const containerdConfig = `version = 3
root = "{{.Dir}}/containerd/root"
state = "{{.Dir}}/containerd/state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.erofs"]

[grpc]
  address = "{{.Containerd}}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{{.Pause}}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true # root in a container may not lower it
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{{.Runc}}"
      SystemdCgroup = false
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{{.CNIPlugins}}"]
    conf_dir = "{{.CNIConfig}}"
`

// cniConfig puts pods on one bridge. There is no way out of the namespace, so nothing is masqueraded.
const cniConfig = `{
  "cniVersion": "1.0.0",
  "name": "testbed",
  "plugins": [{
    "type": "bridge",
    "bridge": "cni0",
    "isGateway": true,
    "ipMasq": false,
    "hairpinMode": true,
    "ipam": {
      "type": "host-local",
      "dataDir": "{{.Dir}}/cni-data",
      "ranges": [[{"subnet": "{{.PodNetwork}}"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
`

// kubeletConfig asks for nothing that root in a container may not do: no rlimits raised, no oom_score_adj lowered.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "{{.PKI}}/ca.crt"}}
authorization: {mode: Webhook}
tlsCertFile: "{{.PKI}}/kubelet-server.crt"
tlsPrivateKeyFile: "{{.PKI}}/kubelet-server.key"
port: {{.Port}}
healthzPort: 0
{{- if .V1}}
failCgroupV1: false
{{- end}}
cgroupDriver: cgroupfs
cgroupRoot: "{{.CgroupRoot}}"
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
containerRuntimeEndpoint: "unix://{{.Containerd}}"
resolvConf: ""
clusterDomain: cluster.local
oomScoreAdj: 0
maxOpenFiles: 20000
podLogsDir: "{{.Dir}}/pod-logs"
makeIPTablesUtilChains: false
protectKernelDefaults: false
localStorageCapacityIsolation: true
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: "1%", imagefs.available: "1%"}
nodeStatusUpdateFrequency: 2s
syncFrequency: 10s
`
