//go:build tools

// Package tools names kube-state-metrics, so that `make images-more MORE=kube-state-metrics` builds the version that go.mod has.
package tools

import _ "k8s.io/kube-state-metrics/v2"
