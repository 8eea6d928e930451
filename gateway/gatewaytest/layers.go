package gatewaytest

import (
	"context"
	"slices"
	"sync"

	"lodge/gateway"
)

// Layers keeps layers in memory, as gateway/store does in its file. The zero value is empty and
// ready; it is safe for concurrent use.
type Layers struct {
	mu  sync.Mutex
	all []gateway.Layer
}

// All implements layers.Records.
func (l *Layers) All(context.Context) ([]gateway.Layer, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all), nil
}

// Put implements layers.Records.
func (l *Layers) Put(_ context.Context, layers ...gateway.Layer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, layer := range layers {
		if i := slices.IndexFunc(l.all, func(have gateway.Layer) bool { return have.ID == layer.ID }); i >= 0 {
			l.all[i].State, l.all[i].Parent = layer.State, layer.Parent
		} else {
			l.all = append(l.all, layer)
		}
	}
	return nil
}

// Delete implements layers.Records.
func (l *Layers) Delete(_ context.Context, id gateway.LayerID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = slices.DeleteFunc(l.all, func(layer gateway.Layer) bool { return layer.ID == id })
	return nil
}
