// Package adopt tells how an agent takes over what is there already: objects that Flux, Argo CD, Helm or kubectl made, and
// a number of replicas that an autoscaler took from Git. The API server, its controllers, the autoscaler among them, the Git
// host and the agent are real; pods are simulated.
package adopt
