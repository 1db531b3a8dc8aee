// Package traefik gives tests a real gateway: Traefik, compiled into the user's cache the first time, and the CRDs of the
// Gateway API that it serves.
package traefik
