output "namespace" {
  description = "The namespace of the environment."
  value       = kubernetes_namespace_v1.this.metadata[0].name
}

output "nats_url" {
  description = "Where producers in the cluster reach NATS."
  value       = "nats://nats.${kubernetes_namespace_v1.this.metadata[0].name}.svc:4222"
}

output "api_url" {
  description = "Where the cluster reaches the orchestrator's HTTP API."
  value       = "http://orchestrator.${kubernetes_namespace_v1.this.metadata[0].name}.svc:8080"
}

output "secrets" {
  description = "The names of the Secrets that pods need; without secret_store they are made before."
  value       = local.secrets
}

output "deployer" {
  description = "The service account of the pipeline, or null."
  value       = one(kubernetes_service_account_v1.deployer[*].metadata[0].name)
}
