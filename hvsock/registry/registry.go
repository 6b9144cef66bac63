package registry

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/google/uuid"
)

// A Service is one registered service. For a port of a Linux guest the ID is
// hvsock.ServiceIDFromPort's.
type Service struct {
	ID          uuid.UUID
	ElementName string // the friendly name, as in performance counters
	// Disabled refuses new connections and ends existing ones.
	Disabled bool
	// Bind and Connect say who may listen and connect; "" is the registry's
	// default.
	Bind, Connect Descriptor
	// NoWildcardBinds makes listeners that are bound to Wildcard or Children
	// EACCES: they must name one VM (HCS: AllowWildcardBinds).
	NoWildcardBinds bool
}

// BuiltIn are services that a Windows host has from the start (hvsock.md 3).
var BuiltIn = []Service{
	{ID: uuid.MustParse("999e53d4-3d5c-4c3e-8779-bed06ec056e1"), ElementName: "VM Session Service"},
}

// A Registry is the services of one host. Its methods may be called from any
// goroutine.
type Registry struct {
	mu            sync.Mutex
	services      map[uuid.UUID]Service
	bind, connect Descriptor // for services that say nothing
	watchers      map[*func(Service)]struct{}
}

// New returns a registry with these services. It panics if one of them cannot be
// registered; Register returns the error instead.
func New(services ...Service) *Registry {
	r := &Registry{services: map[uuid.UUID]Service{}, watchers: map[*func(Service)]struct{}{}}
	for _, s := range services {
		if err := r.Register(s); err != nil {
			panic(err)
		}
	}
	return r
}

// SetDefaults says who may bind and connect to services that say nothing
// themselves; "" is everybody. The error is a *ServiceError.
func (r *Registry) SetDefaults(bind, connect Descriptor) error {
	for _, d := range []Descriptor{bind, connect} {
		if _, _, reason := d.parse(); reason != "" {
			return &ServiceError{Reason: reason}
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bind, r.connect = bind, connect
	return nil
}

// Register adds s, or replaces what was registered under its id. The error is a
// *ServiceError.
func (r *Registry) Register(s Service) error {
	if err := s.check(); err != nil {
		return err
	}
	r.mu.Lock()
	if _, known := r.services[s.ID]; !known && len(r.services) >= MaxServices {
		r.mu.Unlock()
		return &ServiceError{s.ID, "there are too many services"}
	}
	r.services[s.ID] = s
	r.mu.Unlock()
	r.tell(s)
	return nil
}

func (s Service) check() error {
	if s.ID == uuid.Nil {
		return &ServiceError{s.ID, "the zero GUID is no service"}
	}
	for _, text := range []string{s.ElementName, string(s.Bind), string(s.Connect)} {
		if len(text) > MaxTextBytes || !utf8.ValidString(text) {
			return &ServiceError{s.ID, "a text is too long, or not UTF-8"}
		}
	}
	for _, d := range []Descriptor{s.Bind, s.Connect} {
		if _, _, reason := d.parse(); reason != "" {
			return &ServiceError{s.ID, reason}
		}
	}
	return nil
}

// Unregister removes a service; its connections live on, as on Windows, where
// only new sockets look at the key.
func (r *Registry) Unregister(id uuid.UUID) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.services[id]; !known {
		return &ServiceError{id, "it is not registered"}
	}
	delete(r.services, id)
	return nil
}

// Enable lets a service have connections.
func (r *Registry) Enable(id uuid.UUID) error { return r.disable(id, false) }

// Disable refuses new connections of a service and ends those it has.
func (r *Registry) Disable(id uuid.UUID) error { return r.disable(id, true) }

func (r *Registry) disable(id uuid.UUID, disabled bool) error {
	r.mu.Lock()
	s, known := r.services[id]
	if !known {
		r.mu.Unlock()
		return &ServiceError{id, "it is not registered"}
	}
	s.Disabled = disabled
	r.services[id] = s
	r.mu.Unlock()
	r.tell(s)
	return nil
}

// Lookup returns the service registered under id.
func (r *Registry) Lookup(id uuid.UUID) (Service, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.services[id]
	return s, ok
}

// Services returns every service, in the order of their ids.
func (r *Registry) Services() []Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]Service, 0, len(r.services))
	for _, s := range r.services {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Service) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return list
}

// Watch has fn called with each service that is registered, enabled or disabled
// from now on, until stop is called. fn may use the registry.
func (r *Registry) Watch(fn func(Service)) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	own := &fn
	r.watchers[own] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, own)
	}
}

func (r *Registry) tell(s Service) {
	r.mu.Lock()
	var all []func(Service)
	for fn := range r.watchers {
		all = append(all, *fn)
	}
	r.mu.Unlock()
	for _, fn := range all {
		fn(s)
	}
}

// A Question is what a host asks before it binds or connects.
type Question struct {
	Service  uuid.UUID
	Wildcard bool     // bind: to Wildcard or Children, not to one VM
	Trustees []string // who asks, as SDDL names them
	// Strict makes services that are not registered EACCES, as Windows does.
	Strict bool
}

// MayBind returns nil, or the *DeniedError why a program must not listen. A
// disabled service may be listened on: it only gets no connections.
func (r *Registry) MayBind(q Question) error {
	s, err := r.ask(q, "bind")
	if err != nil || s == nil {
		return err
	}
	if q.Wildcard && s.NoWildcardBinds {
		return &DeniedError{q.Service, "bind", "the service has to be bound to one VM", syscall.EACCES}
	}
	if !cmp.Or(s.Bind, r.defaults().Bind).Allows(q.Trustees...) {
		return &DeniedError{q.Service, "bind", "the service's descriptor does not allow it", syscall.EACCES}
	}
	return nil
}

// MayConnect returns nil, or the *DeniedError why a program of the host must not
// connect to the service in a guest.
func (r *Registry) MayConnect(q Question) error {
	s, err := r.ask(q, "connect")
	if err != nil || s == nil {
		return err
	}
	if s.Disabled {
		return &DeniedError{q.Service, "connect", "the service is disabled", syscall.ECONNREFUSED}
	}
	if !cmp.Or(s.Connect, r.defaults().Connect).Allows(q.Trustees...) {
		return &DeniedError{q.Service, "connect", "the service's descriptor does not allow it", syscall.EACCES}
	}
	return nil
}

// MayServe returns nil, or the *DeniedError why a guest's connect to the service
// is refused, whoever listens.
func (r *Registry) MayServe(q Question) error {
	s, err := r.ask(q, "connect")
	if err == nil && s != nil && s.Disabled {
		return &DeniedError{q.Service, "connect", "the service is disabled", syscall.ECONNREFUSED}
	}
	return err
}

// ask finds the service; nil without an error means that anything goes.
func (r *Registry) ask(q Question, op string) (*Service, error) {
	s, known := r.Lookup(q.Service)
	switch {
	case known:
		return &s, nil
	case q.Strict:
		return nil, &DeniedError{q.Service, op, "the service is not registered (GuestCommunicationServices)", syscall.EACCES}
	}
	return nil, nil
}

// defaults are the registry's, as those of a service.
func (r *Registry) defaults() Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Service{Bind: r.bind, Connect: r.connect}
}
