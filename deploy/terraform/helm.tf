# The chart of this repository: the services, NATS and their policies.
resource "helm_release" "agentforge" {
  count = var.installer == "helm" ? 1 : 0

  name             = "agentforge"
  namespace        = kubernetes_namespace_v1.this.metadata[0].name
  create_namespace = false
  chart            = "${path.module}/../helm/agentforge"
  atomic           = true
  timeout          = 900

  values = concat(
    [yamlencode({
      image    = { repository = var.registry, tag = var.image_tag }
      env      = { ENV = var.environment }
      database = { enabled = true, host = var.database.host, cidr = var.database.cidr }
      nats     = { cluster = { enabled = var.environment == "production" } }
      smallStreams = {
        enabled = var.environment != "production"
      }
      networkPolicies = { enabled = true }
    })],
    var.helm_values,
  )

  lifecycle {
    precondition {
      condition     = var.image_tag != null
      error_message = "With installer helm the images need image_tag."
    }
  }

  depends_on = [kubernetes_manifest.secret]
}
