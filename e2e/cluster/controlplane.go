package cluster

import (
	"fmt"
	"os"
	"path/filepath"
)

// The networks of every cluster. Clusters side by side may use the same ones: nothing routes between them.
const (
	serviceNetwork = "10.96.0.0/16"
	serviceAPI     = "10.96.0.1" // first address of serviceNetwork: kubernetes.default
	podNetwork     = "10.89.0.0/16"
)

const (
	roleEtcd              = "etcd"
	roleAPIServer         = "kube-apiserver"
	roleControllerManager = "kube-controller-manager"
	roleScheduler         = "kube-scheduler"
	roleKwok              = "kwok"
	roleKubelet           = "kubelet"
	roleKubeProxy         = "kube-proxy"
)

// controlPlane holds what the arguments of its four roles depend on.
type controlPlane struct {
	dir       string
	ca        *authority
	etcdSock  string // unix socket, below 108 bytes; TCP would let clusters side by side reach each other's data
	bind      string // address that the API server listens on
	advertise string // address that pods reach it by
	port      int
	pods      string // network that the controller manager hands out to nodes; empty: it does not
	leases    bool   // publish the endpoints of kubernetes.default
	audit     bool
}

func (p controlPlane) etcd() []string {
	return []string{
		"--name=e0",
		"--data-dir=" + filepath.Join(p.dir, "etcd"),
		"--unsafe-no-fsync", // the data need not outlive the machine
		"--log-level=warn",
		"--listen-client-urls=unix://" + p.etcdSock,
		"--advertise-client-urls=unix://" + p.etcdSock,
		"--listen-peer-urls=http://127.0.0.1:0",
		"--initial-advertise-peer-urls=http://127.0.0.1:0",
		"--initial-cluster=e0=http://127.0.0.1:0",
	}
}

func (p controlPlane) apiServer() []string {
	reconciler := "none"
	if p.leases {
		reconciler = "lease" // puts the advertised address behind 10.96.0.1
	}
	args := []string{
		"--etcd-servers=unix://" + p.etcdSock,
		"--bind-address=" + p.bind,
		"--advertise-address=" + p.advertise,
		fmt.Sprintf("--secure-port=%d", p.port),
		"--cert-dir=" + p.ca.dir,
		"--tls-cert-file=" + p.ca.path("apiserver.crt"),
		"--tls-private-key-file=" + p.ca.path("apiserver.key"),
		"--client-ca-file=" + p.ca.path("ca.crt"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--service-cluster-ip-range=" + serviceNetwork,
		"--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + p.ca.path("sa.pub"),
		"--service-account-signing-key-file=" + p.ca.path("sa.key"),
		"--kubelet-client-certificate=" + p.ca.path("kubelet-client.crt"),
		"--kubelet-client-key=" + p.ca.path("kubelet-client.key"),
		"--kubelet-certificate-authority=" + p.ca.path("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--proxy-client-cert-file=" + p.ca.path("front-proxy-client.crt"),
		"--proxy-client-key-file=" + p.ca.path("front-proxy-client.key"),
		"--requestheader-client-ca-file=" + p.ca.path("ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--endpoint-reconciler-type=" + reconciler,
		"--profiling=false",
	}
	if p.audit {
		args = append(
			args,
			"--audit-policy-file="+p.auditPolicyPath(),
			"--audit-log-path="+p.auditLogPath(),
			"--audit-log-mode=blocking", // a request that was answered is in the log
			"--audit-log-format=json",
			"--audit-log-maxsize=4096", // MB; the default of 100 would rotate within one test
		)
	}
	return args
}

func (p controlPlane) controllerManager() []string {
	kubeconfig := p.ca.path("controller-manager.kubeconfig")
	args := []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--secure-port=0", // nobody scrapes it; one port less to find
		"--leader-elect=false",
		"--service-account-private-key-file=" + p.ca.path("sa.key"),
		"--root-ca-file=" + p.ca.path("ca.crt"),
		"--cluster-signing-cert-file=" + p.ca.path("ca.crt"),
		"--cluster-signing-key-file=" + p.ca.path("ca.key"),
		"--use-service-account-credentials=true",
		"--profiling=false",
		"--kube-api-qps=300", // with the default its controllers start 5 s late
		"--kube-api-burst=500",
	}
	if p.pods != "" {
		args = append(args, "--allocate-node-cidrs=true", "--cluster-cidr="+p.pods)
	}
	return args
}

func (p controlPlane) scheduler() []string {
	kubeconfig := p.ca.path("scheduler.kubeconfig")
	return []string{
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--secure-port=0",
		"--leader-elect=false",
		"--profiling=false",
		"--kube-api-qps=300",
		"--kube-api-burst=500",
	}
}

func (p controlPlane) auditPolicyPath() string { return filepath.Join(p.dir, "audit-policy.yaml") }
func (p controlPlane) auditLogPath() string    { return filepath.Join(p.dir, "audit.log") }

// auditPolicy logs who asked for what once per request, when it has been answered; a watch is logged when it ends.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
`

// prepare writes the certificates, kubeconfigs and the audit policy. server is how roles beside the API server reach it.
func (p controlPlane) prepare(server string) error {
	hosts := []string{"127.0.0.1", "localhost", serviceAPI, p.advertise, "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if err := p.ca.serve("apiserver", "kube-apiserver", nil, hosts...); err != nil {
		return err
	}
	if _, _, err := p.ca.client("kubelet-client", "kube-apiserver-kubelet-client", "system:masters"); err != nil {
		return err
	}
	if _, _, err := p.ca.client("front-proxy-client", "front-proxy-client"); err != nil {
		return err
	}
	for name, user := range map[string]string{
		"controller-manager": "system:kube-controller-manager",
		"scheduler":          "system:kube-scheduler",
		"kube-proxy":         "system:kube-proxy",
	} {
		if err := p.ca.kubeconfig(p.ca.path(name+".kubeconfig"), server, user); err != nil {
			return err
		}
	}
	if err := p.ca.kubeconfig(p.ca.path("kwok.kubeconfig"), server, "testbed:kwok", "system:masters"); err != nil {
		return err
	}
	if !p.audit {
		return nil
	}
	if err := os.WriteFile(p.auditPolicyPath(), []byte(auditPolicy), 0o600); err != nil {
		return fmt.Errorf("audit policy: %w", err)
	}
	return nil
}
