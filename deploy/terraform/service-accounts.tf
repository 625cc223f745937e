# For a pipeline that runs scripts/verify_staging.sh or promotes.
resource "kubernetes_service_account_v1" "deployer" {
  count = var.deployer ? 1 : 0

  metadata {
    name      = "deployer"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
  }
  automount_service_account_token = false
}

resource "kubernetes_role_binding_v1" "deployer" {
  count = var.deployer ? 1 : 0

  metadata {
    name      = "deployer"
    namespace = kubernetes_namespace_v1.this.metadata[0].name
  }
  role_ref {
    api_group = "rbac.authorization.k8s.io"
    kind      = "ClusterRole"
    name      = "edit"
  }
  subject {
    kind      = "ServiceAccount"
    name      = kubernetes_service_account_v1.deployer[0].metadata[0].name
    namespace = kubernetes_namespace_v1.this.metadata[0].name
  }
}

# The chart makes the service accounts; with Argo CD the Application patches them.
resource "kubernetes_annotations" "service_account" {
  for_each = var.installer == "helm" ? var.service_account_annotations : {}

  api_version = "v1"
  kind        = "ServiceAccount"
  metadata {
    name      = each.key
    namespace = kubernetes_namespace_v1.this.metadata[0].name
  }
  annotations   = each.value
  field_manager = "agentforge-terraform"

  depends_on = [helm_release.agentforge]
}
