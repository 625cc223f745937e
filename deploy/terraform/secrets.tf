# References, no values: External Secrets makes the Secrets in the cluster.
resource "kubernetes_manifest" "secret" {
  for_each = toset(var.secret_store == null ? [] : local.secrets)

  manifest = {
    apiVersion = "external-secrets.io/v1"
    kind       = "ExternalSecret"
    metadata = {
      name      = each.key
      namespace = kubernetes_namespace_v1.this.metadata[0].name
      labels    = { "app.kubernetes.io/part-of" = "agentforge" }
    }
    spec = {
      refreshInterval = "15m"
      secretStoreRef = {
        kind = var.secret_store.kind
        name = var.secret_store.name
      }
      target = {
        name           = each.key
        creationPolicy = "Owner"
      }
      dataFrom = [{ extract = { key = "${var.secret_store.path}/${each.key}" } }]
    }
  }
}
