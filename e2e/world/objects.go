package world

import (
	"strconv"
	"strings"
)

// FourObjects is an application of four objects that runs no pod: a ServiceAccount, a Service, an Ingress and a Deployment.
func FourObjects(name string, port int) string {
	return strings.NewReplacer("NAME", name, "PORT", strconv.Itoa(port)).Replace(`apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME, labels: {team: harbour}}
---
apiVersion: v1
kind: Service
metadata: {name: NAME, labels: {team: harbour}}
spec:
  selector: {app: NAME}
  ports: [{name: http, port: PORT, targetPort: http}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, labels: {team: harbour}}
spec:
  rules:
    - host: NAME.example.com
      http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: NAME, port: {name: http}}}}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, labels: {team: harbour}}
spec:
  replicas: 0
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec:
      serviceAccountName: NAME
      containers: [{name: web, image: "registry.example/web:1", ports: [{name: http, containerPort: 8080}]}]
`)
}
