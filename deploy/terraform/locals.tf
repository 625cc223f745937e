locals {
  # The overlays' namespaces.
  namespaces = {
    staging    = "agentforge-staging"
    production = "agentforge"
  }
  namespace = coalesce(var.namespace, local.namespaces[var.environment])

  # What the gateway of the environment selects its routes by.
  gateway_label = {
    staging    = "dev-gateway-access"
    production = "gateway-access"
  }

  # The service accounts that the manifests make.
  service_accounts = [
    "broadcaster",
    "console",
    "nats-exporter",
    "orchestrator",
    "tactical-api",
    "topology",
    "worker",
  ]

  # Every Secret of k8s/base/shared/secrets.template.yaml. No value is in Terraform, nor in its state.
  secrets = [
    "nats-users",
    "nats-keys",
    "nats-seeds",
    "access-tokens",
    "orchestrator-secret",
    "orchestrator-signing",
    "worker-verify",
    "orchestrator-database",
    "broadcaster-secret",
    "tactical-api-secret",
    "console-signing",
    "console-keys",
    "backlog-secret",
  ]
}
