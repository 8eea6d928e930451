package gateway

import (
	"context"
	"log/slog"
)

// AuditEvent is a change of who may do what, or a use of it.
type AuditEvent string

// The events.
const (
	EventPersonAdded       AuditEvent = "person.added"
	EventPersonChanged     AuditEvent = "person.changed"
	EventPersonRemoved     AuditEvent = "person.removed"
	EventOwnerNamed        AuditEvent = "owner.named"  // by the configuration
	EventOwnerFormer       AuditEvent = "owner.former" // was named by it before
	EventTeamChanged       AuditEvent = "team.changed"
	EventTeamRemoved       AuditEvent = "team.removed"
	EventGranted           AuditEvent = "vm.granted"
	EventShared            AuditEvent = "vm.shared"
	EventRolledBack        AuditEvent = "vm.rolledback" // checkpoint: that of the state that it left
	EventCheckpointRemoved AuditEvent = "checkpoint.removed"
	EventDomainAdded       AuditEvent = "domain.added"
	EventDomainRemoved     AuditEvent = "domain.removed"
	EventPortForwarded     AuditEvent = "forward.added"
	EventForwardEnded      AuditEvent = "forward.removed"
	EventLinkMade          AuditEvent = "link.made"
	EventLinkUsed          AuditEvent = "link.used"
	EventLinkRemoved       AuditEvent = "link.removed"
	EventTokenMade         AuditEvent = "token.made"
	EventTokenRemoved      AuditEvent = "token.removed"
	EventSecretsRefused    AuditEvent = "secret.refused" // too many wrong links, codes and tokens from one address
	EventLoginMade         AuditEvent = "login.made"     // a one-time link
	EventLogin             AuditEvent = "login.used"     // at one name of a VM
	EventLogout            AuditEvent = "login.ended"
	EventMailSet           AuditEvent = "mail.set" // who may write to a VM, or what is done with it
	EventMailRemoved       AuditEvent = "mail.removed"
	EventMailUnqueued      AuditEvent = "mail.unqueued"     // mail to others was removed from the queue
	EventAddressMade       AuditEvent = "mail.address.made" // for some senders, for a time
	EventAddressRemoved    AuditEvent = "mail.address.removed"
	EventAccessAsked       AuditEvent = "access.asked"
	EventAccessApproved    AuditEvent = "access.approved"
	EventAccessDenied      AuditEvent = "access.denied"
	EventPasswordMade      AuditEvent = "mail.password.made" // for IMAP from outside
	EventPasswordRemoved   AuditEvent = "mail.password.removed"
	EventS3QuotaSet        AuditEvent = "s3.quota.set"
	EventBucketGranted     AuditEvent = "s3.granted"  // to another VM
	EventS3KeyMade         AuditEvent = "s3.key.made" // for outside
	EventS3KeysRevoked     AuditEvent = "s3.keys.revoked"
)

// Audit records an event. The attributes have no secrets: person, team, by and the keys of every log.
func Audit(ctx context.Context, log *slog.Logger, event AuditEvent, attrs ...slog.Attr) {
	log.LogAttrs(ctx, slog.LevelInfo, "access recorded", append([]slog.Attr{slog.String("event", string(event))}, attrs...)...)
}
